"""How vectors are stored: rows that grow on disk, the files that are made of them, and reading them back."""

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from protembed.data.arrays import ArrayStream, hdf5_file
from protembed.data.splits import sequence_sha256
from protembed.errors import ConfigError
from protembed.files import atomic_file, scratch_file
from protembed.inputs import STANDARD_STREAM
from protembed.text import table_line

FormatName = Literal["npy", "npz", "tsv", "h5"]
_PER_PROTEIN: tuple[FormatName, ...] = ("npy", "npz", "tsv", "h5")
_PER_RESIDUE: tuple[FormatName, ...] = ("npz", "h5")
_COPY_BLOCK = 1 << 20


def choose_format(output: Path, requested: FormatName | None, *, per_residue: bool) -> FormatName:
    """Decide the format of a result by its name; of what goes to stdout as requested.

    Raises:
        ConfigError: the name tells none, another than was requested, or one that does not hold such vectors.
    """
    fitting = _PER_RESIDUE if per_residue else _PER_PROTEIN
    if output == STANDARD_STREAM and requested == "h5":
        raise ConfigError("--format", "h5", "HDF5 cannot be written to stdout: name a file, or use --format npz")
    told = requested or fitting[0] if output == STANDARD_STREAM else output.suffix.removeprefix(".")
    what = "one vector per residue" if per_residue else "one vector per protein"
    expected = f"{what} is written as {', '.join(fitting[:-1])} or {fitting[-1]}"
    if told not in fitting:
        name = "--format" if output == STANDARD_STREAM else "--output"
        raise ConfigError(name, str(requested if output == STANDARD_STREAM else output), expected)
    if requested not in (None, told):
        raise ConfigError("--format", requested, f"the name {output.name!r} tells {told}; {expected}")
    return next(name for name in fitting if name == told)


# Growing


class Rows(Protocol):
    """Receives the vectors of one protein after the other."""

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        ...

    def append(self, record_id: str, vectors: NDArray[np.float32]) -> None:
        """Append (rows, dim)."""
        ...

    def finish(self) -> None:
        """Write what can only be written at the end."""
        ...


class ArrayRows:
    """Rows of a `.npy` file.

    Args:
        stream: open after the rows that are there already.
        dim: the width of a row.
        dtype: of the numbers.
        num_rows: there already.
    """

    def __init__(self, stream: BinaryIO, dim: int, dtype: str, num_rows: int = 0) -> None:
        self._array = ArrayStream(stream, (dim,), dtype, num_rows=num_rows)

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        return self._array.num_rows

    def append(self, record_id: str, vectors: NDArray[np.float32]) -> None:
        """Append (rows, dim)."""
        self._array.append(vectors)

    def finish(self) -> None:
        """Write the number of rows into the header."""
        self._array.finish()


class TextRows:
    """Lines of a TSV: an identifier and its numbers.

    Args:
        stream: open after the lines that are there already.
        columns: the names of the numbers.
        dtype: of the numbers.
        num_rows: there already; where there are none, the header is written.
    """

    def __init__(self, stream: BinaryIO, columns: Sequence[str], dtype: str, num_rows: int = 0) -> None:
        self._stream, self._dtype, self._num_rows = stream, np.dtype(dtype), num_rows
        if num_rows == 0:
            stream.write(table_line(["id", *columns]))

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        return self._num_rows

    def append(self, record_id: str, vectors: NDArray[np.float32]) -> None:
        """Append a line for each of (rows, dim)."""
        for vector in vectors.astype(self._dtype):
            # Numpy's scalars print the fewest digits that read back as the same number.
            self._stream.write(table_line([record_id, *map(str, vector)]))
        self._num_rows += len(vectors)

    def finish(self) -> None:
        """Do nothing: lines are complete when they are written."""


def column_names(slices: Sequence[dict[str, Any]]) -> list[str]:
    """Name the numbers of a protein's vector; by pooling and layer where there are several.

    >>> column_names([{"pooling": "mean", "layer": 6, "start": 0, "stop": 2}])
    ['dim_1', 'dim_2']
    """
    names = []
    for part in slices:
        prefix = "dim" if len(slices) == 1 else f"{part['pooling']}_layer{part['layer']}"
        names += [f"{prefix}_{number + 1}" for number in range(part["stop"] - part["start"])]
    return names


# What is made of an array of rows


def dataset_name(sequence: str) -> str:
    """Name a protein's dataset as biotrainer looks for it, which hashes a sequence together with its length.

    Identifiers may occur twice, and HDF5 takes their slashes for folders.
    """
    return sequence_sha256(f"{sequence}_{len(sequence)}").hex()


class Member(NamedTuple):
    """A protein whose rows have been written.

    Attributes:
        record_id: its identifier.
        num_rows: how many they are.
        name: of its dataset in HDF5.
    """

    record_id: str
    num_rows: int
    name: str

    def line(self) -> bytes:
        """Spell it for the file beside growing rows."""
        return json.dumps(self).encode() + b"\n"


def read_members(path: Path) -> Iterator[Member]:
    """Read what was noted beside growing rows, one protein after the other."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield Member(*json.loads(line))


def make_npz(target: Path, rows: Path, members: Path, *, per_residue: bool) -> None:
    """Make a `.npz` of an array of rows: `embeddings` with `offsets`, (proteins + 1,), per residue, else with `ids`.

    Args:
        target: the file to be.
        rows: a `.npy` file.
        members: see `read_members`.
        per_residue: whether a protein has many rows.
    """
    name, array = _offsets(members) if per_residue else _ids(members)
    with atomic_file(target) as stream, scratch_file() as second, rows.open("rb") as first:
        np.lib.format.write_array(second, array, allow_pickle=False)
        with zipfile.ZipFile(stream, "w") as archive:
            for member_name, content in (("embeddings.npy", first), (f"{name}.npy", second)):
                content.seek(0)
                # ZipInfo's own date is that of the zip format, so that the same vectors are the same bytes.
                with archive.open(zipfile.ZipInfo(member_name), "w", force_zip64=True) as member:
                    while block := content.read(_COPY_BLOCK):
                        member.write(block)


def _offsets(members: Path) -> tuple[str, NDArray[Any]]:
    counts = np.fromiter((member.num_rows for member in read_members(members)), dtype=np.int64)
    return "offsets", np.concatenate([np.zeros(1, np.int64), counts.cumsum()])


def _ids(members: Path) -> tuple[str, NDArray[Any]]:
    return "ids", np.array([member.record_id for member in read_members(members)], dtype=np.str_)


def make_h5(target: Path, rows: Path, members: Path, model_name: str, *, per_residue: bool) -> None:
    """Make an HDF5 file of an array of rows: a dataset per protein, with attributes `original_id` and `row`.

    Copies of a sequence, after the first, have `.` and their row behind the name that is theirs by `dataset_name`.

    Args:
        target: the file to be; an HDF5 file whose writer was killed cannot be opened, so it is made at the end.
        rows: a `.npy` file.
        members: see `read_members`.
        model_name: the root's attribute.
        per_residue: whether a protein has many rows.
    """
    with ExitStack() as stack:
        file = stack.enter_context(hdf5_file(target))
        file.attrs["model_name"] = model_name
        source = stack.enter_context(rows.open("rb"))
        np.lib.format.read_magic(source)
        (_, dim), _, dtype = np.lib.format.read_array_header_1_0(source)
        for row, member in enumerate(read_members(members)):
            vectors = np.fromfile(source, dtype, member.num_rows * dim).reshape(member.num_rows, dim)
            name = member.name if member.name not in file else f"{member.name}.{row}"
            dataset = file.create_dataset(name, data=vectors if per_residue else vectors[0])
            # HDF5's strings end at a NUL, and h5py refuses one.
            dataset.attrs["original_id"] = member.record_id.replace("\x00", "\\x00")
            dataset.attrs["row"] = row


# Reading back


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what numpy and zipfile raise of a damaged file into a ValueError, as for other formats."""
    try:
        yield
    except (EOFError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from error


@_damage()
def read_vectors(
    path: Path, format_name: FormatName, rows: Mapping[int, str], *, per_residue: bool
) -> dict[int, NDArray[Any]]:
    """Read some proteins' vectors of a result.

    Args:
        path: the result.
        format_name: how it is stored.
        rows: which proteins, and each one's `dataset_name`.
        per_residue: whether a protein has one vector for each residue.

    Returns:
        By row: (dim,) or (residues, dim).

    Raises:
        OSError, ValueError, KeyError: it is damaged.
    """
    match format_name:
        case "npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return {row: np.array(array[row]) for row in rows}
        case "tsv":
            return _read_lines(path, rows)
        case "npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                embeddings = archive["embeddings"]
                offsets = archive["offsets"] if per_residue else None
            return {
                row: embeddings[row] if offsets is None else embeddings[offsets[row] : offsets[row + 1]] for row in rows
            }
        case "h5":
            with h5py.File(path, "r") as file:
                copies = {row: f"{name}.{row}" for row, name in rows.items()}
                return {row: file[copies[row] if copies[row] in file else rows[row]][:] for row in rows}


def _read_lines(path: Path, rows: Collection[int]) -> dict[int, NDArray[Any]]:
    wanted, found = set(rows), {}
    with path.open(encoding="utf-8") as stream:
        next(stream, None)
        for row, line in enumerate(stream):
            if row in wanted:
                found[row] = np.array(line.rstrip("\n").split("\t")[1:], dtype=np.float32)
    return found


@_damage()
def count_proteins(path: Path, format_name: FormatName, *, per_residue: bool) -> int:
    """Count the proteins of a result by the file itself.

    Raises:
        OSError, ValueError, KeyError: it is damaged.
    """
    match format_name:
        case "npy":
            return len(np.load(path, mmap_mode="r", allow_pickle=False))
        case "tsv":
            with path.open("rb") as stream:
                return sum(1 for _ in stream) - 1
        case "npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return len(archive["offsets"]) - 1 if per_residue else len(archive["ids"])
        case "h5":
            with h5py.File(path, "r") as file:
                return len(file)
