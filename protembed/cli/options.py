"""From the dataclasses of `config/` to the options of a command."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from protembed.cli.display import exit_on_errors
from protembed.cli.process import ignore_sigpipe
from protembed.config.base import FORMER_NAMES, Config, flag_name

# Typer would ask whether a file can be read, and call it wrong usage where it cannot; so it is told not to ask.
SKIP_TYPER_PATH_CHECK = False

FastaPaths = Annotated[
    list[Path],
    typer.Argument(
        metavar="FASTA...",
        help="Proteins in FASTA: plain, gzip, bzip2 or xz, told apart by content; - is stdin.",
        show_default=False,
        readable=SKIP_TYPER_PATH_CHECK,
    ),
]
LabelsPath = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS",
        help="Labelled proteins: CSV or TSV with a sequence and a target column, or FASTA with SET= and TARGET=.",
        show_default=False,
        readable=SKIP_TYPER_PATH_CHECK,
    ),
]
VariantsPath = Annotated[
    Path,
    typer.Argument(
        metavar="VARIANTS",
        help="Variants: CSV or TSV with mutations (A42G, several joined by a colon), mutated sequences or both, plain "
        "or compressed; - is stdin.",
        show_default=False,
        readable=SKIP_TYPER_PATH_CHECK,
    ),
]


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of the configs among its parameters, in a help panel per config.

    The command receives the configs as if they had been passed to it. Errors that protembed raises on purpose end the
    process with their sentence and their exit status.
    """
    parameters = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    configs = {name: hints[name] for name in parameters if _is_config(hints[name])}
    others = [
        parameter.replace(annotation=hints[name]) for name, parameter in parameters.items() if name not in configs
    ]
    specs = [spec for config in configs.values() for spec in dataclasses.fields(config)]
    is_advanced = {spec.name: spec.metadata["advanced"] for spec in specs}
    options = [option for config in configs.values() for option in _options(config)]
    options.sort(key=lambda parameter: is_advanced[parameter.name])  # stable: the last panel is "Advanced"

    @functools.wraps(command)
    def run(**values: Any) -> None:
        ignore_sigpipe()
        with exit_on_errors():
            made = {
                name: config(**{spec.name: values.pop(spec.name) for spec in dataclasses.fields(config)})
                for name, config in configs.items()
            }
            command(**values, **made)

    run.__signature__ = inspect.Signature(others + options)  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in others + options}
    return run


def current_flag(name: str) -> str:
    """Return the current name of an option, without its dashes, so that scripts with a former name go on working.

    >>> current_flag("tokens-per-batch"), current_flag("seed")
    ('batch-tokens', 'seed')
    """
    field = name.replace("-", "_")
    return FORMER_NAMES[field].replace("_", "-") if field in FORMER_NAMES else name


def _is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config)


def _options(config: type[Config]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(config)
    panel = (config.__doc__ or "").split(":")[0].rstrip(".")
    for spec in dataclasses.fields(config):
        default = spec.default_factory() if callable(spec.default_factory) else spec.default
        declaration = typer.Option(
            *_flags(spec),
            help=spec.metadata["help"],
            rich_help_panel="Advanced" if spec.metadata["advanced"] else panel,
            min=spec.metadata["min"],
            max=spec.metadata["max"],
            readable=SKIP_TYPER_PATH_CHECK,
            show_default=default is not None and default is not False and default != [],
        )
        annotation = Annotated[hints[spec.name], declaration]  # type: ignore[valid-type, name-defined]  # made at run time
        yield inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flags(spec: "dataclasses.Field[Any]") -> tuple[str, ...]:
    # A lone name keeps Typer from adding --no-quiet and its like.
    flags: tuple[str, ...] = spec.metadata["flags"]
    return flags or (flag_name(spec),)
