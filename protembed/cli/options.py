"""The options of a command, made from the dataclasses of `config/`."""

import functools
import inspect
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from protembed.cli.completion import choice_completer, file_completer
from protembed.cli.display import Display
from protembed.cli.process import check_current_directory, exit_on_errors
from protembed.config.base import FORMER_NAMES, Config, FileKind, Options, choices_of, configs_of, flag_name
from protembed.config.common import ConsoleConfig
from protembed.config.recorded import options_from_record
from protembed.errors import ConfigError
from protembed.io.reading import STANDARD_STREAM

# Longer choices would be broken in the middle of a word at 66 columns.
_MAX_CHOICE_WIDTH = 14


def nonempty_path(text: str) -> Path:
    """Read a path of the command line; `Path("")` would be the current directory, which an unset variable never means.

    Whether a file exists and can be read is found out later: Typer would report it as wrong usage.

    Raises:
        BadParameter: The text is empty.
    """
    if not text:
        raise typer.BadParameter("the path is empty; is a variable of your script unset?")
    return Path(text)


def argument(metavar: str, help: str, *reads: FileKind) -> Any:
    """Declare a file, or several, that a command takes without a flag; `reads` are the kinds that a shell completes."""
    return typer.Argument(
        metavar=metavar,
        help=help,
        show_default=False,
        parser=nonempty_path,
        autocompletion=file_completer(reads),
    )


FastaPaths = Annotated[
    list[Path],
    argument("FASTA", "Proteins in FASTA, plain or compressed (gzip, bzip2, xz, zstd); - is stdin.", "fasta"),
]
ProteinPaths = Annotated[
    list[Path],
    argument(
        "PROTEINS",
        "Proteins in FASTA, or in a table (CSV, TSV, Excel) with a column of sequences, whose other columns are kept; "
        "plain or compressed; - is stdin.",
        *("fasta", "table"),
    ),
]
LabelsPath = Annotated[
    Path,
    argument(
        "LABELS",
        "Labelled proteins: a table (CSV, TSV, Excel) with a sequence and a target column, or FASTA with SET= and "
        "TARGET=.",
        *("table", "fasta"),
    ),
]
ScoredPath = Annotated[
    Path,
    argument(
        "INPUT",
        "Proteins in FASTA; or variants in a table (CSV, TSV, Excel) with mutations (A42G, several joined by a colon), "
        "mutated sequences or both; plain or compressed; - is stdin.",
        *("table", "fasta"),
    ),
]
ResultAndFasta = Annotated[
    list[Path],
    argument(
        "EMBEDDINGS... FASTA...",
        "A result of `embed`, or all shards of one, and the FASTA file that it was made from.",
        *("embeddings", "fasta"),
    ),
]
Results = Annotated[
    list[Path],
    argument(
        "EMBEDDINGS...",
        "Results of `embed`: all shards of one in any order, or those of several inputs in the order of their rows.",
        "embeddings",
    ),
]
QueriesPath = Annotated[
    Path,
    argument(
        "QUERIES",
        "Proteins that are searched for: FASTA, which is embedded first, or a result of `embed`; its shards by a "
        "pattern in quotation marks.",
        *("fasta", "embeddings"),
    ),
]
DatabasePath = Annotated[
    Path,
    argument(
        "DATABASE",
        "Proteins that are searched in, likewise; the same file as QUERIES compares all proteins with all.",
        *("fasta", "embeddings"),
    ),
]


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of the configs in its options.

    Each config has a help panel, named by its docstring up to the colon; advanced options share the last panel. An
    error of protembed's own ends the process with its message and exit status.

    Args:
        command: Function whose parameters `options` and `display` are an `Options` and a `Display`; its others are
            arguments of the command line.
    """
    hints = get_type_hints(command, include_extras=True)
    kind = hints.get("options", Options)
    arguments = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in ("options", "display")
    ]
    specs = [(config, spec) for config in (*configs_of(kind).values(), ConsoleConfig) for spec in fields(config)]
    if "options" not in hints:
        specs = [(config, spec) for config, spec in specs if spec.name != "config"]
    specs.sort(key=lambda pair: pair[1].metadata["advanced"])  # stable: the last panel is "Advanced"
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *arguments, *(_parameter(config, spec) for config, spec in specs)]

    @functools.wraps(command)
    def run(context: typer.Context, **values: Any) -> None:
        # A closed stdout is a write error then, and the command can remove its temporary files.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        with exit_on_errors():
            show = ConsoleConfig(**{spec.name: values.pop(spec.name, None) for spec in fields(ConsoleConfig)})
        name = command.__name__.replace("_", "-")
        data_on_stdout = STANDARD_STREAM in (values.get("output"), values.get("positions"))
        display = Display(show, command=name, data_on_stdout=data_on_stdout)
        with ExitStack() as files, display.report_signals(), exit_on_errors(display.error):
            check_current_directory()
            _check_log_file(show.log_file, values.values())
            display.open_log(files, shlex.join(["protembed", *sys.argv[1:]]))
            made = {argument.name: values.pop(argument.name) for argument in arguments}
            display.options = _make_options(kind, show.config, context, values)
            display.warn(*display.options.without_effect())
            if "options" in hints:
                made["options"] = display.options
            command(**made, display=display)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _make_options(
    kind: type[Options], record: Path | None, context: typer.Context, values: Mapping[str, Any]
) -> Options:
    """Make the options of a command; with a record, of what stands on the command line and else of the record."""
    if record is None:
        return kind.from_values(**values)
    sources = {name: context.get_parameter_source(name) for name in values}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    return options_from_record(kind, record, **{name: values[name] for name in given})


def _check_log_file(log_file: Path | None, values: Iterable[Any]) -> None:
    """Check that the log file is a file, and neither an input nor the output."""
    if log_file == STANDARD_STREAM:
        raise ConfigError("log_file", str(log_file), "the lines are on stderr anyway: name a file")
    paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
    if log_file is not None and any(isinstance(path, Path) and _is_same(path, log_file) for path in paths):
        raise ConfigError("log_file", str(log_file), "the command reads or writes this file: name another one")


def _is_same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def current_flag(name: str) -> str:
    """Return the current name of an option, without its dashes, so that scripts with a former name still work.

    >>> current_flag("tokens-per-batch"), current_flag("seed")
    ('batch-tokens', 'seed')
    """
    field = name.replace("-", "_")
    return FORMER_NAMES[field].replace("_", "-") if field in FORMER_NAMES else name


def _parameter(config: type[Config], spec: "Field[Any]") -> inspect.Parameter:
    hint = get_type_hints(config)[spec.name]
    default = spec.default_factory() if callable(spec.default_factory) else spec.default
    choices = choices_of(hint)
    listed = "|".join(choices)
    is_long, help = len(listed) > _MAX_CHOICE_WIDTH, spec.metadata["help"]
    if is_long and not set(choices) <= set(re.findall(r"[\w-]+", help)):
        help += f" One of: {', '.join(choices)}."
    reads, is_path = spec.metadata["reads"], bool({Path, list[Path]} & {hint, *get_args(hint)})
    panel = (config.__doc__ or "").split(":")[0].rstrip(".")
    declaration = typer.Option(
        *filter(None, [spec.metadata["short"], flag_name(spec.name)]),  # a lone name: there is no --no-quiet
        help=help,
        metavar="<choice>" if is_long else f"<{listed}>" if choices else "<path>" if is_path else None,
        rich_help_panel="Advanced" if spec.metadata["advanced"] else panel,
        parser=nonempty_path if is_path else None,
        show_default=default is not None and default is not False and default != [],
        autocompletion=choice_completer(choices) if choices else file_completer([reads]) if reads else None,
    )
    kind = str if choices else hint  # a wrong choice is reported by the config, as every other wrong value
    annotation = Annotated[kind, declaration]  # type: ignore[valid-type]  # made at run time
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
