"""The command line: the commands put together."""

import os
import sys
from typing import Annotated

import typer

import protembed
from protembed.cli.check import check
from protembed.cli.embed import embed
from protembed.cli.finetune import finetune
from protembed.cli.inspect_attention import inspect_attention
from protembed.cli.models import models
from protembed.cli.predict import predict
from protembed.cli.pretrain import pretrain
from protembed.cli.score import score
from protembed.cli.signals import leave_tidily_on_termination

app = typer.Typer(
    name="protembed",
    help="Protein language models: learn from sequences, turn proteins into vectors, predict their properties.",
    no_args_is_help=True,
    add_completion=False,
    # Typer's own tracebacks print local variables: whole sequences and tensors.
    pretty_exceptions_enable=False,
)
for command in (pretrain, embed, check, finetune, predict, score, inspect_attention, models):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(protembed.__version__)
        raise typer.Exit


@app.callback()
def protembed_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Protein language models: learn from sequences, turn proteins into vectors, predict their properties."""


def main() -> None:
    """Run the command line."""
    leave_tidily_on_termination()
    # Cron and daemons may close them: reading finds nothing then, and data meant for stdout fail to be written.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    app()
