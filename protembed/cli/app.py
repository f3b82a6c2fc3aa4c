"""The command line: all commands in one app."""

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from protembed._version import __version__
from protembed.cli.check import check
from protembed.cli.embed import embed
from protembed.cli.finetune import finetune
from protembed.cli.help import Command, CommandGroup, split_examples
from protembed.cli.inspect_attention import inspect_attention
from protembed.cli.join import join
from protembed.cli.map import map as map_proteins
from protembed.cli.models import models
from protembed.cli.options import current_flag
from protembed.cli.predict import predict
from protembed.cli.pretrain import pretrain
from protembed.cli.process import BestEffortStream, exit_on_errors, exit_on_signals, exit_process
from protembed.cli.score import score
from protembed.cli.search import search

_COMPLETE = "_PROTEMBED_COMPLETE"
HELP_FLAGS = {"help_option_names": ["--help", "-h"]}

app = typer.Typer(
    name="protembed",
    cls=CommandGroup,
    no_args_is_help=True,
    context_settings=HELP_FLAGS,
    # Typer's own tracebacks print local variables: whole sequences and tensors.
    pretty_exceptions_enable=False,
)
COMMANDS = (
    *(pretrain, embed, check, join, search, map_proteins),
    *(finetune, predict, score, inspect_attention, models),
)
for command in COMMANDS:
    text, examples = split_examples(command.__doc__ or "")
    app.command(
        cls=Command,
        help=text,
        epilog=examples,
        context_settings={**HELP_FLAGS, "token_normalize_func": current_flag},
    )(command)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def protembed_command(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Protein language models: pretrain, embed, search, map, fine-tune, predict, score variants, inspect attention."""


def main() -> None:
    """Run the command line."""
    exit_on_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `protembed --help | head` ends quietly
    _redirect_matplotlib_cache()
    _accept_click_instructions()
    # Cron and daemons may close them: then stdin is empty, and writing data to stdout fails.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    sys.stderr = BestEffortStream(sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        with exit_on_errors():
            _run()
    except SystemExit as end:
        exit_process(end.code if isinstance(end.code, int) else end.code is not None)


def _run() -> None:
    """Run a command, or show its help, and flush stdout."""
    try:
        app()
    finally:
        sys.stdout.flush()


def _accept_click_instructions() -> None:
    """Let `_PROTEMBED_COMPLETE=bash_source` print the completion script, as click's manual says, not Typer's."""
    first, _, second = os.environ.get(_COMPLETE, "").partition("_")
    if second in ("source", "complete"):
        os.environ[_COMPLETE] = f"{second}_{first}"


def _redirect_matplotlib_cache() -> None:
    """Let matplotlib keep its list of fonts in TMPDIR while the command runs, unless MPLCONFIGDIR is set.

    It would write to the user's home, and warn on stderr where it cannot.
    """
    os.environ.setdefault("MPLCONFIGDIR", os.devnull)  # not a folder, so that it makes one in TMPDIR and removes it
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
