"""The options of an earlier command, from the record that it wrote or from the user's own file. No torch."""

import dataclasses
import hashlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from protembed.config.base import Config, Options, configs_of
from protembed.config.common import DEFAULT_MODEL
from protembed.errors import ConfigError, FormatError, InputNotFoundError
from protembed.io.fingerprint import with_current_names
from protembed.io.reading import PathLike, as_path, read_json
from protembed.text import reason_of

_Options = TypeVar("_Options", bound=Options)
# Records of trainings hold the settings under the first name; all hold the options as given under the second.
_IDENTITY, _OPTIONS, _COMMAND = "identity", "options", "command"
# What older records of `embed` and `predict` say of a result; options of other commands have these names.
_FACTS = {"dim", "target"}
_NO_FILES = hashlib.sha256().hexdigest()
_ADVICE = "name a record of protembed (NAME.meta.json, meta.json, run.json, metrics.json), or a JSON object of options"


def options_from_record(kind: type[_Options], path: PathLike, **values: Any) -> _Options:
    """Make the options of an earlier command again, some of them changed.

    Args:
        kind: Options of the command, such as `EmbedOptions`.
        path: Record that the command wrote, such as `emb.meta.json` or `run.json`, or a JSON object of options.
        values: Values by the names of fields, which replace the recorded ones.

    Raises:
        InputNotFoundError: The file cannot be read.
        FormatError: It is not a record of this command.
        ConfigError: An option does not exist or is not allowed; or a path or model was given, which records do not
            hold.
    """
    file = as_path("config", path)
    content = _read(file)
    settings = with_current_names(content.get(_IDENTITY, content))
    hints = _hints_of(kind)
    if _OPTIONS in settings:
        if settings.get(_COMMAND) != kind.command:
            raise FormatError(file, f"it is a record of `protembed {settings.get(_COMMAND)}`", "name another record")
        recorded = dict(settings[_OPTIONS])
    elif "protembed_version" in content or _IDENTITY in content:
        recorded = _older_options(kind, file, settings)
    else:
        _check_names(kind, file, settings)
        return kind.from_values(**settings | values)
    _check_names(kind, file, recorded)
    for name in sorted(_paths_given(settings, hints) - values.keys()):
        raise ConfigError(name, None, f"{file} does not record where that file is: give it")
    model = {} if "model" not in hints or "model" in values else {"model": _models_of({**content, **settings}, file)}
    known = {name: value for name, value in recorded.items() if value is not None}
    return kind.from_values(**known | model | values)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = read_json(file)
    except OSError as error:
        raise InputNotFoundError(file, reason_of(error), _ADVICE) from error
    except ValueError as error:
        raise FormatError(file, "it is not valid JSON", _ADVICE) from error
    if not isinstance(content, dict) or not isinstance(content.get(_IDENTITY, {}), dict):
        raise FormatError(file, "it is not a JSON object", _ADVICE)
    return content


def _hints_of(kind: type[Options]) -> dict[str, Any]:
    return {name: hint for config in configs_of(kind).values() for name, hint in get_type_hints(config).items()}


def _is_path(hint: Any) -> bool:
    return bool({Path, list[Path]} & {hint, *get_args(hint)})


def _check_names(kind: type[Options], file: Path, recorded: Mapping[str, Any]) -> None:
    names = _hints_of(kind).keys()
    for name in recorded.keys() - names:
        near = get_close_matches(name, names, 1)
        advice = f"did you mean {near[0]!r}?" if near else "remove it"
        raise FormatError(file, f"{name!r} is not an option of `protembed {kind.command}`", advice)


def _older_options(kind: type[Options], file: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the options from a record of a version that did not list them."""
    hints = _hints_of(kind)
    of_others = (
        {spec.name for config in Config.__subclasses__() for spec in dataclasses.fields(config)} - hints.keys() - _FACTS
    )
    foreign = sorted(of_others & settings.keys())
    if foreign:
        found = f"{foreign[0]!r} is not an option of `protembed {kind.command}`: it is a record of another command"
        raise FormatError(file, found, "name another record")
    return {name: value for name, value in settings.items() if name in hints and not _is_path(hints[name])}


def _paths_given(settings: Mapping[str, Any], hints: Mapping[str, Any]) -> set[str]:
    """List the options that named files, of which a record holds hashes."""
    paths = {name for name, hint in hints.items() if _is_path(hint) and name != "model"}
    return {name for name in paths if settings.get(name) not in (None, [], _NO_FILES)}


def _models_of(settings: Mapping[str, Any], file: Path) -> str | list[str]:
    """Return the recorded model, or several, if the names are enough to find them: they are bundled, or on the hub."""
    if "models" in settings:
        pairs = [name.partition("@") for name in settings["models"]]
        return [_model_of(name, revision, file) for name, _, revision in pairs]
    return _model_of(settings.get("model_name"), settings.get("model_revision"), file)


def _model_of(name: str | None, revision: str | None, file: Path) -> str:
    if name == DEFAULT_MODEL or revision:
        return f"{name}@{revision}" if revision else DEFAULT_MODEL
    raise ConfigError("model", None, f"{file} does not record where the model is: give it")
