"""`python -m msfser COMMAND ...`, the same as `msfser COMMAND ...`."""

from .cli.main import main

if __name__ == "__main__":
    main()
