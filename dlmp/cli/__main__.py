"""``python -m dlmp.cli``."""

from dlmp.cli.program import main

if __name__ == "__main__":
    main()
