"""The files beside a finished result that describe it.

Beside `emb.npy` are `emb.ids.tsv` with a line per row, `emb.failed.tsv` if records were left out on request, and
`emb.meta.json` with the settings of the command. The meta file is written last: a result without it is not finished.
`emb.report.html` is made from all of these on request; it goes when another result takes their place.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_args

from protembed.config.common import Gaps, OnIllegal, Region
from protembed.config.embed import FormatName, LongPolicy
from protembed.data.fasta import Record
from protembed.data.hashing import sequence_sha256
from protembed.embedding.selection import Shard
from protembed.errors import ConfigError, InputNotFoundError, UnusableResultError, VerificationError
from protembed.io.reading import STANDARD_STREAM, read_json
from protembed.io.result import META, UNFINISHED, sidecar, unfinished
from protembed.io.writing import check_temporary_directory

IDS_HEADER = "row id residues windows overlap_cosine unknown_residues sha256 description".split()
FAILED_HEADER = ("file", "line", "id", "reason")
IDS, FAILED, REPORT = ".ids.tsv", ".failed.tsv", ".report.html"
# The first line of every page of protembed.
_PAGE = "<!doctype html><!-- protembed -->"
_UNFINISHED_ADVICE = "wait for its command, or run it again to resume it"
COMPANIONS = {IDS: IDS_HEADER, FAILED: FAILED_HEADER, REPORT: (_PAGE,)}
# Fields of a meta file that differ between the shards of a result, and add up to those of the whole.
COUNTS = ("num_proteins", "num_residues", "num_windowed", "num_refused")


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
    **dict.fromkeys(COUNTS, _is_count),
    **dict.fromkeys(("sha256", "ids_sha256"), lambda value: isinstance(value, str)),
}


def is_meta(content: Any) -> bool:
    """Return whether the content of a meta file is valid."""
    is_complete = isinstance(content, dict) and all(
        name in content and is_valid(content[name]) for name, is_valid in _META_FIELDS.items()
    )
    # These are recorded only if they were set.
    region, gaps = (content.get("region"), content.get("gaps", "error")) if is_complete else (None, None)
    is_region = region is None or (isinstance(region, str) and Region.is_valid(region))
    return is_complete and is_region and gaps in get_args(Gaps)


def read_meta(output: Path) -> dict[str, Any]:
    """Read the meta file of a finished result.

    Raises:
        InputNotFoundError: The result does not exist, or is not finished.
        VerificationError: Its meta file is missing or invalid.
    """
    if not os.path.exists(output):
        if os.path.exists(unfinished(output)):
            raise InputNotFoundError(str(output), "this result is unfinished", _UNFINISHED_ADVICE)
        raise InputNotFoundError(str(output), "this result does not exist", "check the path")
    with suppress(OSError, ValueError):
        content: dict[str, Any] = read_json(sidecar(output, META))
        if is_meta(content):
            return content
    raise UnusableResultError(output, _reason_without_meta(output))


def _reason_without_meta(path: Path) -> str:
    """Explain what a path is that has no meta file beside it; `emb.*` matches more than results."""
    if path.suffix == UNFINISHED:
        return f"it is unfinished; {_UNFINISHED_ADVICE}"
    if path.name.endswith((META, *COMPANIONS)) or path.is_dir():
        return f"it is {'a directory' if path.is_dir() else 'a file beside a result'}; name the file with the vectors"
    if path.suffix.removeprefix(".") not in get_args(FormatName):
        return "it is not a result of `embed`; embed it first (`protembed embed`), and name the file with the vectors"
    if not os.path.exists(sidecar(path, META)):
        found = f"{sidecar(path, META).name} is missing, which `embed` writes beside the vectors"
        return f"{found}; copy it too, or embed the proteins again"
    return f"{sidecar(path, META).name} is damaged; embed the proteins again"


def check_report(output: Path) -> None:
    """Check that a page about a result can be written beside it.

    Raises:
        ConfigError: The result goes to stdout.
        NoTemporaryDirectoryError: There is none that can be written, which matplotlib needs.
    """
    if output == STANDARD_STREAM:
        raise ConfigError("report", True, "it is written beside the result: name a file with `output`")
    check_temporary_directory()


def read_ids_lines(output: Path) -> Iterator[str]:
    """Read the lines of the table of identifiers beside a result, without its header."""
    with sidecar(output, IDS).open(encoding="utf-8", newline="\n") as stream:
        next(stream, None)
        for line in stream:
            yield line.removesuffix("\n")


class StoredProtein(NamedTuple):
    """What the table of identifiers beside a result says about a protein.

    Attributes:
        cell: Identifier, as a cell of a table.
        num_windows: Windows in which the protein was computed.
        overlap_cosine: Cosine of neighbouring windows where they overlap; NaN for a single window.
        num_unknown: Occurrences of X.
        sha256: Hash of the sequence, hexadecimal.
        description: Full header, as a cell of a table; empty in results of earlier versions.
    """

    cell: str
    num_residues: int
    num_windows: int
    overlap_cosine: float
    num_unknown: int
    sha256: str
    description: str

    @property
    def sequence_hash(self) -> int:
        """64 bits of the hash of the sequence, as `hash_texts` returns them."""
        return int.from_bytes(bytes.fromhex(self.sha256[:16]), "little")


def read_proteins(output: Path) -> Iterator[StoredProtein]:
    """Read the table of identifiers beside a result.

    Raises:
        VerificationError: The table is damaged.
    """
    try:
        for line in read_ids_lines(output):
            _, cell, residues, windows, cosine, unknown, sha256, *description = line.split("\t")
            numbers = int(residues), int(windows), float(cosine or "nan"), int(unknown)
            bytes.fromhex(sha256)
            yield StoredProtein(cell, *numbers, sha256, "".join(description))
    except ValueError as error:
        raise VerificationError(output, f"its table of identifiers cannot be read ({error})") from error


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
