"""Embedding files: one vector per protein as `.npy` or `.tsv`, one per residue as `.h5` or packed `.npz`.

Beside `emb.npy` stand `emb.ids.tsv` with a line per row, `emb.failed.tsv` where records were left out on request, and
last `emb.meta.json` with what made it: a result without its meta file is not finished.
"""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from protembed.data.arrays import ArrayStream
from protembed.data.fasta import Record, RefusedRecord
from protembed.data.splits import sequence_sha256
from protembed.errors import ConfigError, OutputExistsError
from protembed.files import (
    STANDARD_STREAM,
    atomic_file,
    atomic_path,
    output_stream,
    read_json,
    remove,
    scratch_file,
    sha256_of_file,
    write_json,
)
from protembed.text import table_line

FormatName = Literal["npy", "tsv", "h5", "npz"]
_PER_PROTEIN: tuple[FormatName, ...] = ("npy", "tsv")
_PER_RESIDUE: tuple[FormatName, ...] = ("h5", "npz")
_IDS_HEADER = "row id residues windows overlap_cosine unknown_residues sha256 description".split()
_COPY_BLOCK = 1 << 20


class VectorWriter(Protocol):
    """Receives the vectors of one protein after the other."""

    def add(self, record: Record, vectors: NDArray[np.float32]) -> None:
        """Append (dim,) or (residues, dim)."""
        ...


def choose_format(output: Path, requested: FormatName | None, *, per_residue: bool) -> FormatName:
    """Decide the format of a result by its name, or as requested.

    Raises:
        ConfigError: the name tells none, or one that does not hold such vectors.
    """
    fitting = _PER_RESIDUE if per_residue else _PER_PROTEIN
    if requested is None and output == STANDARD_STREAM and not per_residue:
        return "npy"
    suffix = output.suffix.removeprefix(".")
    for name in fitting:
        if name == (requested or suffix):
            return name
    what = "one vector per residue" if per_residue else "one vector per protein"
    expected = f"{what} is written as {' or '.join(fitting)}"
    raise ConfigError("--format" if requested else "--output", requested or str(output), expected)


def companion(output: Path, suffix: str) -> Path:
    """Name a file beside a result: `emb.ids.tsv` beside `emb.npy`, but `emb.h5.ids.tsv` beside `emb.h5`.

    Of one input there may be vectors per protein and per residue, and each keeps its own.
    """
    stem = output.with_suffix("") if output.suffix == ".npy" else output
    return stem.with_name(stem.name + suffix)


def finished_result(output: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Look for a finished result of the very same command.

    Args:
        output: the result's file.
        fingerprint: what the command would record of itself.

    Returns:
        What its meta file says; None where nothing stands.

    Raises:
        OutputExistsError: another result stands there, or one that is not finished.
    """
    if not output.exists():
        return None
    try:
        recorded = read_json(companion(output, ".meta.json"))
    except (OSError, ValueError):
        recorded = None
    if not isinstance(recorded, dict):
        raise OutputExistsError(output, "has no meta file beside it that says what it is")
    different = [name for name, value in fingerprint.items() if recorded.get(name) != value]
    if fingerprint.get("input_sha256") is None:
        different.append("input")
    if different:
        raise OutputExistsError(output, f"was made with another {', '.join(different)}")
    if recorded.get("sha256") != sha256_of_file(output):
        raise OutputExistsError(output, "does not match its meta file")
    return recorded


@contextmanager
def embeddings_file(output: Path, meta: Mapping[str, Any], refused: list[RefusedRecord]) -> Iterator[VectorWriter]:
    """Open a result for writing, protein by protein; all its files appear at the end, the meta file last.

    Args:
        output: the file, or `-` for stdout, which has no files beside it.
        meta: what made it, `format`, `dim`, `dtype` and `model_name` among it; counts and hash are added.
        refused: records left out on request; read when the block has ended.

    Raises:
        OutputError: something could not be written.
    """
    if output == STANDARD_STREAM:
        with _open_vectors(output, meta) as vectors:
            yield vectors
        return
    with atomic_file(companion(output, ".ids.tsv")) as ids:
        ids.write(table_line(_IDS_HEADER))
        with _open_vectors(output, meta) as vectors:
            writer = _WithIds(vectors, ids)
            yield writer
            remove(companion(output, ".meta.json"))  # an older result is intact until here, and from here on no result
    _write_refused(companion(output, ".failed.tsv"), refused)
    counts = {"num_proteins": writer.num_proteins, "num_residues": writer.num_residues, "num_refused": len(refused)}
    write_json(companion(output, ".meta.json"), {**meta, **counts, "sha256": sha256_of_file(output)})


class _WithIds:
    """Writes a line about each protein beside its vectors."""

    def __init__(self, vectors: VectorWriter, ids: BinaryIO) -> None:
        self._vectors, self._ids = vectors, ids
        self.num_proteins = self.num_residues = 0

    def add(self, record: Record, vectors: NDArray[np.float32]) -> None:
        self._vectors.add(record, vectors)
        sha256 = sequence_sha256(record.sequence).hex()
        unknown, residues = record.sequence.count("X"), len(record.sequence)
        line = (record.row, record.id, residues, 1, "", unknown, sha256, record.description)
        self._ids.write(table_line(line))
        self.num_proteins += 1
        self.num_residues += residues


def _write_refused(path: Path, refused: Iterable[RefusedRecord]) -> None:
    lines = [table_line((Path(record.path).name, record.line, record.id, record.reason)) for record in refused]
    if not lines:
        remove(path)
        return
    with atomic_file(path) as stream:
        stream.write(table_line(("file", "line", "id", "reason")))
        stream.writelines(lines)


# The formats


def _open_vectors(output: Path, meta: Mapping[str, Any]) -> AbstractContextManager[VectorWriter]:
    dim, dtype = int(meta["dim"]), np.dtype(meta["dtype"])
    format_name: FormatName = meta["format"]
    match format_name:
        case "npy":
            return _npy(output, dim, dtype)
        case "tsv":
            return _tsv(output, dim, dtype)
        case "npz":
            return _npz(output, dim, dtype)
        case "h5":
            return _h5(output, dtype, str(meta["model_name"]))


class _NpyVectors:
    def __init__(self, array: ArrayStream) -> None:
        self._array = array

    def add(self, record: Record, vectors: NDArray[np.float32]) -> None:
        self._array.append(vectors[None])


@contextmanager
def _npy(output: Path, dim: int, dtype: np.dtype[Any]) -> Iterator[_NpyVectors]:
    with output_stream(output) as stream:
        array = ArrayStream(stream, (dim,), dtype)
        yield _NpyVectors(array)
        array.finish()


class _TsvVectors:
    def __init__(self, stream: BinaryIO, dtype: np.dtype[Any]) -> None:
        self._stream, self._dtype = stream, dtype

    def add(self, record: Record, vectors: NDArray[np.float32]) -> None:
        # Numpy's scalars print the fewest digits that read back as the same number.
        self._stream.write(table_line([record.id, *map(str, vectors.astype(self._dtype))]))


@contextmanager
def _tsv(output: Path, dim: int, dtype: np.dtype[Any]) -> Iterator[_TsvVectors]:
    with output_stream(output) as stream:
        stream.write(table_line(["id", *(f"dim_{number}" for number in range(1, dim + 1))]))
        yield _TsvVectors(stream, dtype)


class _NpzVectors:
    def __init__(self, array: ArrayStream) -> None:
        self._array = array
        self.offsets = [0]

    def add(self, record: Record, vectors: NDArray[np.float32]) -> None:
        self._array.append(vectors)
        self.offsets.append(self._array.num_rows)


@contextmanager
def _npz(output: Path, dim: int, dtype: np.dtype[Any]) -> Iterator[_NpzVectors]:
    # A member of a zip cannot be sought in, and the array's header needs the count first.
    with output_stream(output) as stream, scratch_file() as rows, scratch_file() as offsets:
        array = ArrayStream(rows, (dim,), dtype)
        writer = _NpzVectors(array)
        yield writer
        array.finish()
        np.lib.format.write_array(offsets, np.array(writer.offsets, dtype=np.int64), allow_pickle=False)
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in (("embeddings.npy", rows), ("offsets.npy", offsets)):
                content.seek(0)
                # ZipInfo's own date is that of the zip format, so that the same vectors are the same bytes.
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    while block := content.read(_COPY_BLOCK):
                        member.write(block)


class _H5Vectors:
    def __init__(self, file: h5py.File, dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype

    def add(self, record: Record, vectors: NDArray[np.float32]) -> None:
        # Named by row: an identifier may occur twice, and HDF5 takes its slashes for folders.
        dataset = self._file.create_dataset(str(record.row), data=vectors.astype(self._dtype))
        # HDF5's strings end at a NUL, and h5py refuses one.
        dataset.attrs["original_id"] = record.id.replace("\x00", "\\x00")


@contextmanager
def _h5(output: Path, dtype: np.dtype[Any], model_name: str) -> Iterator[_H5Vectors]:
    if output == STANDARD_STREAM:
        raise ConfigError("--output", "-", "HDF5 cannot be written to stdout: name a file, or use --format npz")
    with ExitStack() as stack:
        file = stack.enter_context(h5py.File(stack.enter_context(atomic_path(output)), "w"))
        file.attrs["model_name"] = model_name
        yield _H5Vectors(file, dtype)
