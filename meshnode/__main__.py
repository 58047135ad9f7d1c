"""`python -m meshnode`: the same as the console script."""

from meshnode.cli import main

if __name__ == "__main__":
    main()
