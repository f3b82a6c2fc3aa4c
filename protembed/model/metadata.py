"""The metadata of a model: what protembed knows about it beyond its weights, stored in `protembed.json`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from protembed._version import __version__
from protembed.config.common import PoolingName, Region, TaskName
from protembed.config.model_sizes import ESM2_WINDOW_RESIDUES
from protembed.errors import ModelFormatError
from protembed.io.writing import write_json
from protembed.model.hf_format import CONFIG_FILE, VOCABULARY_FILE
from protembed.model.untrusted import read_model_json

METADATA_FILE = "protembed.json"
# All that protembed writes into the directory of a model.
MODEL_FILES = (
    METADATA_FILE,
    CONFIG_FILE,
    "model.safetensors",
    "head.safetensors",
    "contact_head.safetensors",
    "training_kmers.safetensors",
    VOCABULARY_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "README.md",
)
# Version 2 added the region: a reader of version 1 would predict from whole proteins, and be wrong. Version 3 renamed
# keys of the training data. A model has the lowest version that describes it.
FORMAT_VERSION, _WITH_REGION, _WITHOUT_REGION = 3, 2, 1
# Keys of the training data in version 2.
_FORMER_KEYS = {
    "highest_nonstandard_share": "highest_nonstandard_fraction",
    "starts_with_met_share": "starts_with_met_fraction",
}
# Longer windows would not fit the integers of an array, and no protein is so long.
_MAX_WINDOW_RESIDUES = 2**31 - 1
# The numbers of longer k-mers of 20 amino acids would not fit 64 bits.
_MAX_KMER_LENGTH = 14


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The proteins that a fine-tuned model was trained and tested on; with a region, that region of each protein.

    Attributes:
        lengths: The minimum, 5 % quantile, median, 95 % quantile and maximum of the training proteins' lengths, in
            residues.
        shortest: The length of the shortest protein of the table, validation and test proteins included, in residues.
        longest: The length of the longest protein of the table, in residues.
        num_nonstandard_residues: The number of residues of training proteins that are not among the 20 amino acids.
        highest_nonstandard_fraction: The highest fraction of such residues in a protein of the table.
        starts_with_met_fraction: The fraction of the training proteins whose first residue is M.
        class_counts: The number of training proteins of each class, or of their residues where residues have classes;
            None for values.
        value_range: The lowest and the highest training value; None for classes.
        kmer_length: The length of the k-mers of `training_kmers.safetensors`.
        num_tested: The number of test proteins, each compared with the training proteins of its model.
        num_tested_related: The number of test proteins that share a stored k-mer with a training protein.
    """

    num_proteins: int
    lengths: tuple[int, ...]
    shortest: int
    longest: int
    num_nonstandard_residues: int
    highest_nonstandard_fraction: float
    starts_with_met_fraction: float
    class_counts: Mapping[str, int] | None
    value_range: tuple[float, ...] | None
    kmer_length: int
    num_tested: int
    num_tested_related: int


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What protembed knows about a model beyond its weights: the content of `protembed.json`.

    Attributes:
        window_residues: The length of the windows that the model was trained on, in residues.
        layer: The layer whose output represents a protein; None is the last.
        pooling: The poolings of residues into one vector, as in `mean,std`; None if the model was not trained for one.
        configuration: The options of the command that made the model.
        corpus_fingerprint: The fingerprint of the tokens that the model was pretrained on; None where unknown.
        classes: The classes or labels of a fine-tuned model; None for values, and for an encoder.
        task: The task of a fine-tuned model; None for an encoder.
        target: The name of what a fine-tuned model predicts; None for an encoder.
        region: The residues of each protein that a fine-tuned model was trained on, as in `1-70`; None is all.
        training_data: The proteins that a fine-tuned model was trained on; None where they are unknown.
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
    region: str | None = None
    training_data: TrainingData | None = None

    @property
    def has_finetuned_encoder(self) -> bool:
        """Whether the encoder was trained for a task: for that of this model, or of the one it was fine-tuned from."""
        settings = self.configuration
        return self.task is not None and (settings.get("method") != "frozen" or "from_finetuned" in settings)

    @property
    def poolings(self) -> tuple[PoolingName, ...]:
        """The poolings of residues into one vector; the mean where the model was trained for none."""
        return tuple(cast("list[PoolingName]", (self.pooling or "mean").split(",")))


def _are_distinct(names: Sequence[str], known: Sequence[str]) -> bool:
    return set(names) <= set(known) and len(set(names)) == len(names)


# The fields of protembed.json that a reader relies on, and the test that each must pass.
_METADATA_FIELDS: dict[str, Callable[[Any], Any]] = {
    "window_residues": lambda value: type(value) is int and 0 < value <= _MAX_WINDOW_RESIDUES,
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
    "region": lambda value: value is None or (isinstance(value, str) and Region.is_valid(value)),
    "training_data": lambda value: value is None or _is_training_data(value),
}


def _is_training_data(value: Any) -> bool:
    names = {spec.name for spec in dataclasses.fields(TrainingData)}
    if not isinstance(value, dict) or not names <= value.keys():
        return False
    counts = [value[name] for name in names if name.startswith("num_")]
    fractions = [value[name] for name in names if name.endswith("_fraction")]
    lengths, classes, values = value["lengths"], value["class_counts"], value["value_range"]
    return (
        isinstance(lengths, list)
        and len(lengths) == 5
        and all(map(_is_count, [*counts, *lengths, value["shortest"], value["longest"], value["kmer_length"]]))
        and value["num_tested_related"] <= value["num_tested"]
        and 0 < value["kmer_length"] <= _MAX_KMER_LENGTH
        and all(_is_number(fraction) and 0 <= fraction <= 1 for fraction in fractions)
        and (classes is None or (isinstance(classes, dict) and all(map(_is_count, classes.values()))))
        and (values is None or (isinstance(values, list) and len(values) == 2 and all(map(_is_number, values))))
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_WINDOW_RESIDUES


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_metadata(directory: Path, window_residues: int = ESM2_WINDOW_RESIDUES) -> ModelMetadata:
    """Read `protembed.json`.

    Args:
        directory: The model's directory.
        window_residues: The window, in residues, of a model that has no such file, or one that names none.

    Returns:
        The metadata; the defaults for a model that has none because protembed did not make it.

    Raises:
        ModelFormatError: The file is damaged, or was written by a newer protembed.
    """
    if not (directory / METADATA_FILE).exists():
        return ModelMetadata(window_residues=window_residues)
    content = read_model_json(directory / METADATA_FILE)
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        found = f"protembed.json has format version {version!r:.80}"
        raise ModelFormatError(directory, found, f"this protembed reads up to {FORMAT_VERSION}: install a newer one")
    if isinstance(data := content.get("training_data"), dict):
        content["training_data"] = {_FORMER_KEYS.get(key, key): value for key, value in data.items()}
    for name, is_valid in _METADATA_FIELDS.items():
        if name in content and not is_valid(content[name]):
            raise ModelFormatError(directory, f"protembed.json has {name} {content[name]!r:.80}")
    values = {"window_residues": window_residues, **_fields(ModelMetadata, content)}
    if values.get("target") is not None and values.get("task") is None:  # before there were more than two tasks
        values["task"] = "regression" if values.get("classes") is None else "classification"
    if values.get("training_data") is not None:
        values["training_data"] = TrainingData(**_fields(TrainingData, values["training_data"]))
    return ModelMetadata(**values)


def _fields(kind: type[ModelMetadata | TrainingData], content: Mapping[str, Any]) -> dict[str, Any]:
    """Select the fields of a dataclass from JSON; lists become tuples."""
    values = {spec.name: content[spec.name] for spec in dataclasses.fields(kind) if spec.name in content}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def write_metadata(directory: Path, metadata: ModelMetadata, *, contact_head_fitted: bool) -> None:
    """Write `protembed.json`.

    Raises:
        OutputError: The file cannot be written.
    """
    fields = dataclasses.asdict(metadata)
    for name in ("region", "training_data"):
        if fields[name] is None:  # most models have neither
            del fields[name]
    version = _WITHOUT_REGION if metadata.region is None else _WITH_REGION
    content = {
        "format_version": version if metadata.training_data is None else FORMAT_VERSION,
        "protembed_version": __version__,
        **fields,
        "contact_head_fitted": contact_head_fitted,
    }
    write_json(directory / METADATA_FILE, content)
