"""How commands show their help: flags without a type, and the examples of the docstring at the end."""

import inspect
import textwrap
from typing import Any

from typer.core import TyperCommand, TyperGroup

from protembed.cli.display import Display
from protembed.config.common import ConsoleConfig

_HEADING = "\nExamples:\n"


def split_examples(docstring: str) -> tuple[str, str]:
    r"""Divide a command's docstring into its text, which begins the help, and its examples, which end it.

    >>> split_examples("Embed.\n\n    Examples:\n        protembed embed a.fasta\n    ")
    ('Embed.\n', 'Examples:\n  protembed embed a.fasta')
    """
    text, heading, examples = inspect.cleandoc(docstring).partition(_HEADING)
    return text, (heading + textwrap.indent(textwrap.dedent(examples), "  ")).strip("\n")


def _without_types(parameters: list[Any]) -> list[Any]:
    """Remove the type of flags: `--quiet <bool>` invites to type `--quiet true`."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command of protembed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; report wrong usage as JSON too if --json is given."""
        is_json = "--json" in args
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Typer brings its own copy of click's exceptions, or imports click's, depending on its version.
            if is_json and hasattr(error, "format_message") and hasattr(error, "exit_code"):
                display = Display(ConsoleConfig(json=True), command=ctx.info_name)
                display.print_error_json(error.format_message(), error, error.exit_code)
            raise

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, and the examples line by line; Typer before 0.28 joins the lines of an epilog."""
        examples, self.epilog = self.epilog, None
        super().format_help(ctx, formatter)
        self.epilog = examples
        print(examples)


class CommandGroup(TyperGroup):
    """The command `protembed` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))
