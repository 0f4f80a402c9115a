"""Hostile input and faults: generators for the tests, and the large counts of `make stress`."""
