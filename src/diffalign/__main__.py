"""`python -m diffalign`."""

from diffalign.cli import main

if __name__ == "__main__":
    main()
