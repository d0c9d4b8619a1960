"""`python -m forage` is `forage`."""

from forage.cli import main

if __name__ == "__main__":
    main()
