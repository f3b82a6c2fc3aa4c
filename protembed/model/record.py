"""`protembed.json`: what protembed knows about a model beyond its weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import protembed
from protembed.config.shared import PoolingName
from protembed.config.task import TaskName
from protembed.errors import ModelFormatError
from protembed.files import write_json
from protembed.model.esm_config import ESM2_WINDOW_RESIDUES
from protembed.model.own_files import read_model_json

FORMAT_VERSION = 1
RECORD_FILE = "protembed.json"


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What protembed knows about a model beyond its weights: the content of `protembed.json`.

    Attributes:
        window_residues: the longest stretch that the model was trained on.
        layer: whose output represents a protein; None is the last.
        pooling: how residues become one vector, several side by side as in `mean,std`; None if nothing was trained
            for one.
        configuration: the options of the command that made the model.
        corpus_fingerprint: of the tokens that it was pretrained on.
        metrics: what was measured on it.
        classes: of a fine-tuned classifier.
        task: of a fine-tuned model.
        target: what a fine-tuned model predicts; None for an encoder.
    """

    window_residues: int = ESM2_WINDOW_RESIDUES
    layer: int | None = None
    pooling: str | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    corpus_fingerprint: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    task: TaskName | None = None
    target: str | None = None

    @property
    def poolings(self) -> tuple[PoolingName, ...]:
        """How residues become one vector, side by side; the mean where nothing else was trained for."""
        return tuple(cast("list[PoolingName]", (self.pooling or "mean").split(",")))


# No protein is so long; more would not fit the integers of an array.
_MOST_WINDOW_RESIDUES = 2**31 - 1


def _are_distinct(names: Sequence[str], known: Sequence[str]) -> bool:
    return set(names) <= set(known) and len(set(names)) == len(names)


# What a reader relies on in protembed.json, and the test that it must pass.
_RECORD_FIELDS: dict[str, Callable[[Any], Any]] = {
    "window_residues": lambda value: type(value) is int and 0 < value <= _MOST_WINDOW_RESIDUES,
    "layer": lambda value: value is None or (type(value) is int and value >= 0),
    "pooling": lambda value: (
        value is None or (isinstance(value, str) and _are_distinct(value.split(","), get_args(PoolingName)))
    ),
    "configuration": lambda value: isinstance(value, dict),
    "corpus_fingerprint": lambda value: value is None or isinstance(value, str),
    "metrics": lambda value: isinstance(value, dict),
    "classes": lambda value: (
        value is None or (isinstance(value, list) and value and all(isinstance(name, str) for name in value))
    ),
    "task": lambda value: value is None or value in get_args(TaskName),
    "target": lambda value: value is None or isinstance(value, str),
}


def read_record(directory: Path) -> ModelRecord:
    """Read `protembed.json`.

    Args:
        directory: of the model.

    Returns:
        The record; of a model from elsewhere, which has none, the defaults.

    Raises:
        ModelFormatError: it is damaged, or was written by a newer protembed.
    """
    if not (directory / RECORD_FILE).exists():
        return ModelRecord()
    content = read_model_json(directory / RECORD_FILE)
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        found = f"protembed.json has format version {version!r:.80}"
        raise ModelFormatError(directory, found, f"this protembed reads up to {FORMAT_VERSION}: install a newer one")
    known = {spec.name for spec in dataclasses.fields(ModelRecord)}
    values = {name: value for name, value in content.items() if name in known}
    for name, is_valid in _RECORD_FIELDS.items():
        if name in values and not is_valid(values[name]):
            found = f"protembed.json has {name} {values[name]!r:.80}"
            raise ModelFormatError(directory, found, "fetch or make the model again")
    if values.get("classes") is not None:
        values["classes"] = tuple(values["classes"])
    if values.get("target") is not None and values.get("task") is None:  # before there were more than two tasks
        values["task"] = "regression" if values.get("classes") is None else "classification"
    return ModelRecord(**values)


def write_record(directory: Path, record: ModelRecord, *, contact_head_fitted: bool) -> None:
    """Write `protembed.json`.

    Args:
        directory: the model directory that is being made.
        record: what is known about the model.
        contact_head_fitted: whether its contact head predicts anything.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "protembed_version": protembed.__version__,
        **dataclasses.asdict(record),
        "contact_head_fitted": contact_head_fitted,
    }
    write_json(directory / RECORD_FILE, content)
