"""The base of all configs: options that carry their help, range and flags, and check themselves. No torch."""

import dataclasses
import inspect
import math
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, dataclass_transform, get_args, get_origin, get_type_hints

from protembed.config.effects import Condition
from protembed.errors import ConfigError, ProtembedError
from protembed.io.fingerprint import FORMER_NAMES as FORMER_NAMES, with_current_names as with_current_names
from protembed.io.reading import as_path, as_paths

FileKind = Literal["model", "fasta", "table", "clusters", "embeddings", "structures", "record"]


def option(
    default: Any,
    help: str,
    *,
    short: str | None = None,
    min: float | None = None,
    max: float | None = None,
    check: Callable[[Any], object] | None = None,
    reads: FileKind | None = None,
    needs: Sequence[Condition] = (),
    advanced: bool = False,
) -> Any:
    """Declare a field of a config, and with it an option of the command line.

    Args:
        default: The default; None means absent or planned from the data, as `help` says.
        help: One sentence, with the unit.
        short: The option's second name, a dash and a letter.
        min: The smallest value allowed.
        max: The largest value allowed.
        check: Function that raises a ConfigError if the value is not allowed.
        reads: What is in the file or folder that the option names, so that a shell can complete it.
        needs: Conditions without which the option has no effect, of which the user is warned.
        advanced: Whether the option stands in the last help panel, "Advanced".
    """
    metadata = {
        **{"help": help, "short": short, "min": min, "max": max, "check": check},
        **{"reads": reads, "needs": needs, "advanced": advanced},
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Frozen:
    """Makes its subclasses frozen dataclasses, whose `repr` is one line: the fields that differ from their defaults."""

    def __init_subclass__(cls, *, kw_only: bool = True) -> None:
        dataclass(frozen=True, kw_only=kw_only, repr=False)(cls)

    def __repr__(self) -> str:
        default = type(self)()
        changed = [
            f"{name}={str(value) if isinstance(value, Path) else value!r}"
            for name, value in vars(self).items()
            if value != getattr(default, name)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


# Options that do not affect what a result contains; a page does not show where it is written either.
_NOT_RECORDED = ("dry_run", "report")
_NOT_ON_PAGES = ("output", "force", "dry_run", "report")

_SCALARS: Mapping[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


class Config(_Frozen):
    """The base of all configs: turns texts into paths, and checks ranges and choices, when it is created."""

    def __init_subclass__(cls, *, kw_only: bool = True) -> None:
        hints, specs = get_type_hints(cls), {name: vars(cls)[name] for name in inspect.get_annotations(cls)}
        if cls.__doc__ is not None:  # python -OO removes docstrings
            cls.__doc__ += "\n\nArgs:\n" + "\n".join(_describe(name, specs[name], hints[name]) for name in specs)
        super().__init_subclass__(kw_only=kw_only)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            name, hint, value = spec.name, hints[spec.name], getattr(self, spec.name)
            if value is None:
                continue
            value = _coerced(name, value, hint)
            object.__setattr__(self, name, value)  # as dataclasses themselves fill a frozen one
            choices = choices_of(hint)
            if choices and value not in choices:
                raise ConfigError(name, value, f"one of {', '.join(choices)} is expected")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(name, value, "a finite number is expected")
            low, high = spec.metadata["min"], spec.metadata["max"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise ConfigError(name, value, f"a value {_describe_range(low, high)} is expected")
            if spec.metadata["check"] is not None:
                spec.metadata["check"](value)

    def _check_absent(self, *names: str, expected: str) -> None:
        """Check that options which mean nothing beside the others are absent."""
        for name in names:
            value = getattr(self, name)
            if value is not None:
                raise ConfigError(name, str(value) if isinstance(value, Path) else value, expected)


def _describe(name: str, spec: "dataclasses.Field[Any]", hint: Any) -> str:
    """Describe a field for Python users: its type or choices, help, range and default."""
    kind = " | ".join(map(repr, choices_of(hint))) or inspect.formatannotation(hint).replace(
        "pathlib.Path", "str | Path"
    )
    none = " | None" if choices_of(hint) and type(None) in get_args(hint) else ""
    sentences = [re.sub("--([a-z-]+)", lambda flag: f"`{flag[1].replace('-', '_')}`", spec.metadata["help"])]
    low, high = spec.metadata["min"], spec.metadata["max"]
    if low is not None or high is not None:
        sentences.append(f"A value {_describe_range(low, high)}.")
    if spec.default not in (None, dataclasses.MISSING):
        sentences.append(f"Default: {spec.default!r}.")
    text = f"{name} ({kind}{none}): {' '.join(sentences)}"
    return textwrap.fill(text, 100, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False)


def _coerced(name: str, value: Any, hint: Any) -> Any:
    """Convert what Python users pass to the type of its field: texts to paths, numbers and lists to `3` and `3,6`."""
    kinds = (hint, *get_args(hint))
    for kind, (accepted, expected) in _SCALARS.items():
        if kind in kinds:
            if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
                raise ConfigError(name, value, f"{expected} is expected")
            return kind(value)
    if list[Path] in kinds:
        return as_paths(name, value) if isinstance(value, str | os.PathLike) or value else []
    if Path in kinds:
        return as_path(name, value)
    return _as_list_text(name, value) if str in kinds and not isinstance(value, str) else value


def _as_list_text(name: str, value: Any) -> str:
    """Write a number, or several numbers or names, as the command line does: `3`, `3,6`, `mean,max`."""
    parts = list(value) if isinstance(value, Iterable) else [value]
    if not parts or not all(isinstance(part, str | Integral) and not isinstance(part, bool) for part in parts):
        raise ConfigError(name, value, "a text, a whole number, or a list of them is expected")
    return ",".join(map(str, parts))


class Options(_Frozen):
    """The base of all options of a command: one config for each help panel, in their order.

    Attributes:
        command: The name of the command.
    """

    command: ClassVar[str]

    def as_given(self) -> dict[str, Any]:
        """Return the command and its options, as the record of a result holds them.

        Paths, and what does not affect a result, such as the number of threads, are left out.
        """
        values = as_plain_values(*(config for name, config in vars(self).items() if name != "compute"))
        hints = {
            name: hint for config in configs_of(type(self)).values() for name, hint in get_type_hints(config).items()
        }
        paths = {name for name, hint in hints.items() if {Path, list[Path]} & {hint, *get_args(hint)}}
        options = {name: value for name, value in values.items() if name not in paths and name not in _NOT_RECORDED}
        return {"command": self.command, "options": options}

    def command_line(self, inputs: Iterable[Path]) -> str:
        """Write the command for a page: its inputs, and the options that are not the default.

        Files are named without their folders, which are private. The output, and what does not affect a result,
        such as the number of threads, are left out.

        Args:
            inputs: Files that the command takes without a flag; `-` is stdin.
        """
        words = ["protembed", self.command, *(path.name for path in inputs)]
        for config in (config for name, config in vars(self).items() if name != "compute"):
            default = type(config)()
            for name, value in vars(config).items():
                if value != getattr(default, name) and name not in _NOT_ON_PAGES:
                    words += _as_words(name, value)
        return shlex.join(words)

    def without_effect(self) -> list[str]:
        """List a sentence for each option that is not the default, and has no effect beside the others."""
        configs = vars(self).values()
        values = {name: value for config in configs for name, value in vars(config).items()}
        default = {name: value for config in configs for name, value in vars(type(config)()).items()}
        return [
            f"`{spec.name}` has no effect: it needs {' and '.join(condition.needed for condition in missing)}"
            for config in configs
            for spec in dataclasses.fields(config)
            if values[spec.name] != default[spec.name]
            and (missing := [condition for condition in spec.metadata["needs"] if not condition.holds(values)])
        ]

    @classmethod
    def from_values(cls, **values: Any) -> Self:
        """Make the options from the values of single fields, whichever config each belongs to.

        Args:
            values: Values by the names of fields, also former ones; fields that are not named have their defaults.

        Raises:
            ConfigError: No config has a field of that name, or a value is not allowed.
        """
        values, configs = with_current_names(values), {}
        names = [spec.name for config in configs_of(cls).values() for spec in dataclasses.fields(config)]
        for name, config in configs_of(cls).items():
            own = {spec.name: values.pop(spec.name) for spec in dataclasses.fields(config) if spec.name in values}
            configs[name] = config(**own)
        for name, value in values.items():
            near = get_close_matches(name, names, 1)
            advice = f"; did you mean `{near[0]}`?" if near else ""
            raise ConfigError(name, value, f"{cls.__name__} has no field of this name{advice}")
        return cls(**configs)


def _as_words(name: str, value: Any) -> list[str]:
    """Write an option and its value as the words of a command line."""
    if isinstance(value, bool):
        return [flag_name(name if value else f"no_{name}")]
    values = value if isinstance(value, list) else [value]
    texts = [part.name if isinstance(part, Path) else str(part) for part in values]
    return [word for text in texts for word in (flag_name(name), text)]


def configs_of(options: type[Options]) -> dict[str, type[Config]]:
    """List the configs of options by the names of their fields."""
    hints = get_type_hints(options)
    return {spec.name: hints[spec.name] for spec in dataclasses.fields(options)}


def choices_of(hint: Any) -> tuple[str, ...]:
    """List the values of a field with a fixed choice; none for other fields.

    >>> choices_of(Literal["npz", "h5"] | None), choices_of(int)
    (('npz', 'h5'), ())
    """
    return next((get_args(part) for part in (hint, *get_args(hint)) if get_origin(part) is Literal), ())


def flag_name(name: str) -> str:
    """Return the long option of a field: `mask_rate` is `--mask-rate`."""
    return "--" + name.replace("_", "-")


def with_flags(error: ProtembedError) -> str:
    """Return an error's sentence as the command line shows it: with flags where it has names of options."""
    sentence = str(error)
    if isinstance(error, ConfigError) and error.option in _option_names():
        found = sentence.removeprefix(error.option)
        if error.found is True:
            found = found.replace(" is True,", " is given,", 1)  # a flag has no value
        sentence = flag_name(error.option) + found
    return flags_in(sentence)


def flags_in(sentence: str) -> str:
    """Write the options that a sentence names in backticks as flags."""
    return re.sub(rf"`({'|'.join(_option_names())})`", lambda name: flag_name(name[1]), sentence)


def _option_names() -> set[str]:
    return {spec.name for config in Config.__subclasses__() for spec in dataclasses.fields(config)}


def as_plain_values(*configs: Config) -> dict[str, Any]:
    """Convert configs to values that JSON can hold, without those that do not affect the result: paths, `--force`."""
    return {
        name: value
        for config in configs
        for name, value in dataclasses.asdict(config).items()
        if not isinstance(value, Path | list) and name not in ("force", "output")
    }


def _describe_range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"of at least {low:g}" if low is not None else f"of at most {high:g}"
