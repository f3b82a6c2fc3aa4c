"""`python -m protembed` and the `protembed` command."""

from protembed.cli.app import main

if __name__ == "__main__":
    main()
