"""`python -m panollava`: the trainer alone, for a machine without the dashboard."""

from panollava.cli import main

if __name__ == "__main__":
    main()
