"""The files beside a finished result that describe it.

Beside `emb.npy` are `emb.ids.tsv` with a line per row, `emb.failed.tsv` if records were left out on request, and
`emb.meta.json` with the settings of the command. The meta file is written last: a result without it is not finished.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from protembed.config.common import Region
from protembed.config.embed import LongPolicy
from protembed.data.fasta import OnIllegal, Record
from protembed.data.hashing import sequence_sha256
from protembed.embedding.formats import FormatName
from protembed.embedding.selection import Shard
from protembed.errors import OutputError, OutputExistsError
from protembed.io.reading import STANDARD_STREAM, path_exists, read_json, sha256_of_file
from protembed.io.result import is_vacant
from protembed.io.writing import move_into_place, remove
from protembed.text import format_row

IDS_HEADER = "row id residues windows overlap_cosine unknown_residues sha256 description".split()
FAILED_HEADER = ("file", "line", "id", "reason")
META, IDS, FAILED = ".meta.json", ".ids.tsv", ".failed.tsv"
_MAX_HEADER = 1000


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(item) is kind for item in value)


# The required fields of a meta file, each with the test that its value must pass.
_META_FIELDS: dict[str, Callable[[Any], bool]] = {
    "model_name": lambda value: isinstance(value, str) and value != "",
    "model_revision": lambda value: value is None or isinstance(value, str),
    "model_sha256": lambda value: isinstance(value, str),
    "on_illegal": lambda value: value in get_args(OnIllegal),
    "long": lambda value: value in get_args(LongPolicy),
    "window_residues": lambda value: _is_count(value) and value > 0,
    "shard": lambda value: value is None or (isinstance(value, str) and Shard.is_valid(value)),
    "per_residue": lambda value: isinstance(value, bool),
    "layer": lambda value: _is_list_of(int, value),
    "pooling": lambda value: value is None or _is_list_of(str, value),
    "slices": lambda value: _is_list_of(dict, value),
    "precision": lambda value: value in ("float32", "bfloat16", "float16"),
    "dtype": lambda value: value in ("float32", "float16"),
    "format": lambda value: value in get_args(FormatName),
    "dim": _is_count,
    **dict.fromkeys(("num_proteins", "num_residues", "num_windowed", "num_refused"), _is_count),
    **dict.fromkeys(("sha256", "ids_sha256"), lambda value: isinstance(value, str)),
}


def sidecar(output: Path, suffix: str) -> Path:
    """Return the path of a file beside a result: `emb.ids.tsv` for `emb.npy`, but `emb.h5.ids.tsv` for `emb.h5`.

    One input may have a result per protein and one per residue, and each has separate files.
    """
    stem = output.with_suffix("") if output.suffix == ".npy" else output
    return stem.with_name(stem.name + suffix)


def _is_region(value: Any) -> bool:
    # A region is recorded only if proteins were cut to one.
    return value is None or (isinstance(value, str) and Region.is_valid(value))


def read_meta(output: Path) -> dict[str, Any] | None:
    """Read the meta file of a finished result; None if it is missing or invalid."""
    try:
        recorded = read_json(sidecar(output, META))
    except (OSError, ValueError, RecursionError):
        return None
    is_complete = isinstance(recorded, dict) and all(
        name in recorded and is_valid(recorded[name]) for name, is_valid in _META_FIELDS.items()
    )
    return recorded if is_complete and _is_region(recorded.get("region")) else None


def different_settings(fingerprint: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """List the names of the settings in which a command differs from a recorded one."""
    return [name for name, value in {"region": None, **fingerprint}.items() if recorded.get(name) != value]


def finished_result(output: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Look for a finished result of the same command.

    Args:
        output: Path of the result.
        fingerprint: Settings that the command would record.

    Returns:
        The content of its meta file; None if there is no result.

    Raises:
        OutputExistsError: The result of a different command exists there, or one that is incomplete.
    """
    if is_vacant(output):
        return None
    recorded = read_meta(output)
    if recorded is None:
        raise OutputExistsError(output, "has no valid meta file beside it")
    different = different_settings(fingerprint, recorded)
    if different:
        raise OutputExistsError(output, f"was made with a different {', '.join(different)}")
    for path, name in ((output, "sha256"), (sidecar(output, IDS), "ids_sha256")):
        if not path.exists() or recorded.get(name) != sha256_of_file(path):
            raise OutputExistsError(output, f"{path.name} is missing or does not match the meta file beside it")
    return recorded


def _is_sidecar(output: Path, path: Path) -> bool:
    """Return whether a file beside a result was written by protembed, judging by its content."""
    if path == sidecar(output, META):
        return read_meta(output) is not None
    header = IDS_HEADER if path == sidecar(output, IDS) else FAILED_HEADER
    with path.open("rb") as stream:
        return stream.readline(_MAX_HEADER) == format_row(header)


def check_replaceable(output: Path, inputs: Sequence[Path]) -> None:
    """Check that a result and its files would not replace an input, a directory, a device, a pipe or an unknown file.

    Raises:
        OutputExistsError: They would.
    """
    if output == STANDARD_STREAM:
        return
    for path in (output, *(sidecar(output, suffix) for suffix in (IDS, FAILED, META))):
        if is_vacant(path):
            continue
        if not path.is_file():
            raise OutputExistsError(path, "is not a file", is_replaceable=False)
        if any(path_exists(source) and path.samefile(source) for source in inputs):
            raise OutputExistsError(path, "is an input", is_replaceable=False)
        if path != output and not _is_sidecar(output, path):
            raise OutputExistsError(path, "was not written by protembed", is_replaceable=False)


def ids_line(row: int, record: Record, num_windows: int, overlap_cosine: float | None) -> tuple[object, ...]:
    """Return the cells that describe a row of a result, numbered from 1, in the order of `IDS_HEADER`."""
    return (
        row,
        record.id,
        len(record.sequence),
        num_windows,
        "" if overlap_cosine is None else f"{overlap_cosine:.4f}",
        record.sequence.count("X"),
        sequence_sha256(record.sequence).hex(),
        record.description,
    )


def _move(source: Path, target: Path) -> None:
    if source.exists():
        move_into_place(source, target)


def _roll_back(partial: Path, new: Sequence[Path], older: dict[Path, Path]) -> None:
    for target in reversed(new):
        if not (partial / target.name).exists():
            move_into_place(target, partial / target.name)
    for target in reversed(older):  # the meta file last
        _move(older[target], target)


def publish(partial: Path, output: Path) -> None:
    """Rename the finished files to their final names; if the process is killed, calling this again completes it.

    An older result is moved away first, beginning with its meta file, without which it is no longer a result.

    Raises:
        OutputError: A file cannot be renamed; the older result is restored.
    """
    meta, ids = sidecar(output, META), sidecar(output, IDS)
    targets = (ids, sidecar(output, FAILED), output, meta)
    new = [target for target in targets if (partial / target.name).exists()]
    older = {target: partial / f".{target.name}.0.old" for target in (meta, *targets[:-1])}
    is_begun = ids not in new  # a killed process has already moved the older result away
    try:
        if not is_begun:
            for target, backup in older.items():
                _move(target, backup)
        for target in new:
            move_into_place(partial / target.name, target)
    except OutputError:
        if not is_begun:
            _roll_back(partial, new, older)
        raise
    remove(partial)
