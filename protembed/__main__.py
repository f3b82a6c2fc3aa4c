"""`python -m protembed` and the `protembed` command."""

from protembed.cli.process import die_of_interrupts

die_of_interrupts()

from protembed.cli.app import main  # noqa: E402  # loading the commands takes longest, and is interrupted most

if __name__ == "__main__":
    main()
