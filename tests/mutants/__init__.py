"""Mutants: small faults put into a copy of the source, each of which a test should notice (`make mutants`)."""
