"""How commands show their help: flags without a type, and the examples of the docstring at the end."""

import inspect
import textwrap
from typing import Any

from typer.core import TyperCommand, TyperGroup

_HEADING = "\nExamples:\n"


def split_examples(docstring: str) -> tuple[str, str]:
    r"""Divide a command's docstring into its text, which begins the help, and its examples, which end it.

    >>> split_examples("Embed.\n\n    Examples:\n        protembed embed a.fasta\n    ")
    ('Embed.\n', '\nExamples:\n  protembed embed a.fasta')
    """
    text, heading, examples = inspect.cleandoc(docstring).partition(_HEADING)
    return text, heading + textwrap.indent(textwrap.dedent(examples), "  ")


def _without_types(parameters: list[Any]) -> list[Any]:
    """Remove the type of flags: `--quiet <bool>` invites to type `--quiet true`."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command of protembed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))


class CommandGroup(TyperGroup):
    """The command `protembed` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))
