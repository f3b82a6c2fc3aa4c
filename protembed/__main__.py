"""`python -m protembed` and the `protembed` command."""

import signal

# While the commands are loaded, which takes longest and is interrupted most, Ctrl-C ends the process silently. A shell
# that starts it in the background ignores SIGINT; that is kept.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from protembed.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
