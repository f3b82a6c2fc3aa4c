"""`python -m protembed` and the `protembed` command."""

from protembed.cli.process import restore_default_sigint

restore_default_sigint()

from protembed.cli.app import main  # noqa: E402  # loading the commands takes longest, and is interrupted most

if __name__ == "__main__":
    main()
