"""How commands show their help: flags without a type, and the examples of the docstring at the end."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from protembed.cli.display import Display
from protembed.cli.layout import wrapped
from protembed.config.common import ConsoleConfig

_HEADING = "\nExamples:\n"
# In panels of fewer columns, options are cut and descriptions have a word a line.
_MIN_COLUMNS_OF_PANELS = 66
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_TYPOGRAPHIC_OPTION = re.compile(f"(?!--?[a-zA-Z])[{_DASHES}]+[a-zA-Z]")


def split_examples(docstring: str) -> tuple[str, str]:
    r"""Divide a command's docstring into its text, which begins the help, and its examples, which end it.

    >>> split_examples("Embed.\n\n    Examples:\n        protembed embed a.fasta\n    ")
    ('Embed.\n', 'Examples:\n  protembed embed a.fasta')
    """
    text, heading, examples = inspect.cleandoc(docstring).partition(_HEADING)
    return text, (heading + textwrap.indent(textwrap.dedent(examples), "  ")).strip("\n")


def _without_types(parameters: list[Any]) -> list[Any]:
    """Remove the type of flags, because `--quiet <bool>` invites `--quiet true`, and what Typer adds to files."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
            # Typer puts what is required in braces, and dots behind them, also behind other dots.
            dots = "" if parameter.nargs == 1 or parameter.metavar.endswith("...") else "..."
            parameter._usage_display_name = partial(str, parameter.metavar + dots)
    return parameters


def check_dashes(args: Sequence[str]) -> None:
    """Check that no option begins with a dash of word processors, which turn `--` into one; values may.

    Raises:
        BadParameter: An option does.

    >>> check_dashes(["labels.csv", "--target", "–x"])
    """
    for before, argument in zip(["", *args], args, strict=False):
        if _TYPOGRAPHIC_OPTION.match(argument) and not before.startswith("-"):
            right = argument.lstrip(_DASHES)
            right = f"-{right}" if len(right) == 1 else f"--{right}"
            found = f"{argument!r} begins with another dash than '-', as word processors and web pages write it"
            raise typer.BadParameter(f"{found}; type {right}")


class Command(TyperCommand):
    """A command of protembed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; report wrong usage as JSON too if --json is given."""
        is_json = "--json" in args
        try:
            check_dashes(args)
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
        if not _print_narrow_help(self, ctx):
            super().format_help(ctx, formatter)
        self.epilog = examples
        print(examples)


class CommandGroup(TyperGroup):
    """The command `protembed` itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        if not _print_narrow_help(self, ctx):
            super().format_help(ctx, formatter)


def _print_narrow_help(command: Any, ctx: Any) -> bool:
    """Print the help without panels if the terminal is too narrow for them; return whether it was."""
    width = shutil.get_terminal_size().columns
    if width >= _MIN_COLUMNS_OF_PANELS:
        return False
    print(wrapped(command.get_usage(ctx), width), wrapped(command.help.strip(), width), sep="\n\n", end="\n\n")
    for title, records in _sections(command, ctx).items():
        print(f"{title}:")
        for names, description in records:
            print(wrapped(f"  {names}", width), wrapped(f"    {' '.join(description.split())}", width), sep="\n")
        print()
    return True


def _sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """List what a help describes, names and descriptions, by the titles of its panels."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections.setdefault(parameter.rich_help_panel or kind, []).append(record)
    if isinstance(command, CommandGroup):
        commands = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
        sections["Commands"] = [(name, sub.help or "") for name, sub in commands.items() if sub is not None]
    return sections
