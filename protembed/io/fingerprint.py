"""What makes two results the same: the settings, the model, the input, and the version of protembed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from protembed._version import __version__
from protembed.io.reading import sha256_of_inputs

_HASH_LENGTH = 64

Fingerprint = Mapping[str, Any]

# Settings that were renamed. Results and run directories hold the former name, and the command line still takes it.
FORMER_NAMES: Mapping[str, str] = {
    "class_weights": "balance_classes",
    "cluster_similarity": "cluster_identity",
    "compare": "compare_model",
    "decay_share": "decay_fraction",
    "drop_shared": "drop_leaked",
    "dtype": "store_dtype",
    "figures": "figure_format",
    "from": "init_from",
    "head_rate_factor": "head_lr_multiplier",
    "id_column": "id",
    "long": "long_proteins",
    "measurement": "measured_column",
    "num_maps": "save_maps",
    "num_rows": "sample_size",
    "offset": "position_offset",
    "quick": "skip_random_baseline",
    "save_minutes": "save_every_minutes",
    "tokens_per_batch": "batch_tokens",
    "tokens_per_pack": "micro_batch_tokens",
}
# Settings that are recorded only if they differ from these values: results of versions without them stay the same.
RECORDED_IF_SET: Mapping[str, Any] = {
    **dict.fromkeys(("region", "position", "wild_type_residue", "clusters", "cluster_column", "test_set")),
    **dict.fromkeys(("models", "models_sha256", "measured_column", "teacher")),
    **dict.fromkeys(("gaps", "on_missing"), "error"),
    "descriptions": False,
    "precision": "auto",
    "teacher_weight": 0.9,
}
# Settings that follow from others, and the options as they were given.
_DERIVED = ("slices", "dim", "command", "options")
# What is not an option, in the user's words.
_WORDS = {
    "protembed_version": "the version of protembed",
    **dict.fromkeys(("model", "model_name", "model_revision", "model_sha256", "models", "models_sha256"), "the model"),
    **dict.fromkeys(("fasta", "input_sha256"), "the input"),
    **dict.fromkeys(("labels", "labels_sha256"), "the table of labels"),
    **{"queries_sha256": "the file of queries", "database_sha256": "the database"},
    "sequences_sha256": "the FASTA",
    "shape": "the shape (layers, width, heads)",
    "teacher": "the teacher",
}


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the former names of settings that an earlier version of protembed stored.

    >>> with_current_names({"tokens_per_batch": 4096, "seed": 0})
    {'batch_tokens': 4096, 'seed': 0}
    """
    return {FORMER_NAMES.get(name, name): value for name, value in settings.items()}


def settings_to_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the settings that earlier versions did not have, unless they are set.

    >>> settings_to_record({"seed": 0, "on_missing": "error"}), settings_to_record({"on_missing": "skip"})
    ({'seed': 0}, {'on_missing': 'skip'})
    """
    return {
        name: value for name, value in settings.items() if name not in RECORDED_IF_SET or value != RECORDED_IF_SET[name]
    }


class _Options(Protocol):
    def as_given(self) -> dict[str, Any]: ...


class _Model(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    def sha256(self) -> str: ...


def make_fingerprint(
    options: _Options, settings: Mapping[str, Any], model: _Model, inputs: Iterable[Path] | None
) -> dict[str, Any]:
    """Collect what makes two results the same: settings, model, input, and the version of protembed.

    The options as they were given are recorded beside the settings, so that the command can be repeated. The bytes of
    the inputs are hashed, unless these are None because the result is written to stdout.
    """
    return {
        **options.as_given(),
        "protembed_version": __version__,
        "model_name": model.name,
        "model_revision": model.revision,
        "model_sha256": model.sha256(),
        "input_sha256": None if inputs is None else sha256_of_inputs(inputs),
        **settings_to_record(settings),
    }


def differences(recorded: Fingerprint, fingerprint: Fingerprint) -> list[str]:
    """Say in what a command differs from a recorded one, with the names of options as in other errors.

    >>> differences({"seed": 0, "dtype": "float32"}, {"seed": 0, "dtype": "float16"})
    ['`store_dtype` was float32, not float16']
    >>> differences({"input_sha256": "0" * 64, "shard": None}, {"input_sha256": "1" * 64, "shard": "2/8"})
    ['the input differs', '`shard` was none, not 2/8']
    >>> differences({"gaps": "drop"}, {})
    ['`gaps` was drop, not error']
    """
    before, now = with_current_names(recorded), with_current_names(fingerprint)
    found = dict[str, str]()
    for name in {**before, **now}:
        old, new = (settings.get(name, RECORDED_IF_SET.get(name)) for settings in (before, now))
        if old != new and name not in _DERIVED:
            word = _WORDS.get(name, f"`{name}`")
            is_hash = any(isinstance(value, str) and len(value) == _HASH_LENGTH for value in (old, new))
            found.setdefault(word, f"{word} differs" if is_hash else f"{word} was {_as_text(old)}, not {_as_text(new)}")
    return list(found.values())


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)
