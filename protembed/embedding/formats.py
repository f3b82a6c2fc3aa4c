"""How vectors are stored: rows that grow on disk, the files that are made of them, and reading them back."""

import json
import struct
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from protembed.config.embed import H5Names
from protembed.data.hashing import sequence_sha256
from protembed.errors import ConfigError
from protembed.io.arrays import ArrayStream, hdf5_file
from protembed.io.reading import STANDARD_STREAM
from protembed.io.text import format_row
from protembed.io.writing import atomic_file

FormatName = Literal["npy", "npz", "tsv", "h5"]
_PER_PROTEIN: tuple[FormatName, ...] = ("npy", "npz", "tsv", "h5")
_PER_RESIDUE: tuple[FormatName, ...] = ("npz", "h5")
_COPY_BLOCK = 1 << 20
# Strings of equal width take four bytes a letter, however short they are. They may be so many times as wide as the
# mean, or so many letters in all, before another layout is due.
_WIDEST_TO_MEAN, _SMALL_ARRAY = 4, 1 << 20
# Of a dataset's name in HDF5; a longer identifier is an accident, and unwieldy.
_LONGEST_NAME = 1000


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
        if output == STANDARD_STREAM:
            raise ConfigError("--format", requested, expected)
        ending = requested if requested in fitting else fitting[0]
        raise ConfigError("--output", str(output), f"{expected}: name it, for example, {output.stem}.{ending}")
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
            stream.write(format_row(["id", *columns]))

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        return self._num_rows

    def append(self, record_id: str, vectors: NDArray[np.float32]) -> None:
        """Append a line for each of (rows, dim)."""
        for vector in vectors.astype(self._dtype):
            # Numpy's scalars print the fewest digits that read back as the same number.
            self._stream.write(format_row([record_id, *map(str, vector)]))
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

    Args:
        sequence: as it is written in the FASTA file, without white space.
    """
    return sequence_sha256(f"{sequence}_{len(sequence)}").hex()


class RowGroup(NamedTuple):
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


def read_members(path: Path) -> Iterator[RowGroup]:
    """Read what was noted beside growing rows, one protein after the other."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield RowGroup(*json.loads(line))


def make_npz(target: Path, rows: Path, members: Path, *, per_residue: bool) -> None:
    """Make a `.npz` of an array of rows: `embeddings` with `offsets`, (proteins + 1,), per residue, else with `ids`.

    Where a few identifiers are much longer than the others, an array of strings, all as wide as the longest, would be
    far larger than the vectors. Then `ids_utf8`, (bytes,) uint8, and `id_offsets`, (proteins + 1,) int64, stand in
    place of `ids`.

    Args:
        target: the file to be.
        rows: a `.npy` file.
        members: see `read_members`.
        per_residue: whether a protein has many rows.
    """
    with atomic_file(target) as stream, zipfile.ZipFile(stream, "w") as archive:
        with _npz_member(archive, "embeddings") as member, rows.open("rb") as source:
            while block := source.read(_COPY_BLOCK):
                member.write(block)
        if per_residue:
            _write_offsets(archive, "offsets", (member.num_rows for member in read_members(members)))
        else:
            _write_ids(archive, members)


@contextmanager
def _npz_member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    # ZipInfo's own date is that of the zip format, so that the same vectors are the same bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        yield member


def _write_offsets(archive: zipfile.ZipFile, name: str, sizes: Iterable[int]) -> None:
    offsets = np.concatenate([np.zeros(1, np.int64), np.fromiter(sizes, dtype=np.int64).cumsum()])
    with _npz_member(archive, name) as member:
        np.lib.format.write_array(member, offsets, allow_pickle=False)


def _write_ids(archive: zipfile.ZipFile, members: Path) -> None:
    """Write identifiers one by one: as strings of equal width, or one after the other where that is far smaller."""
    lengths = np.fromiter((len(member.record_id) for member in read_members(members)), dtype=np.int64)
    width = max(1, int(lengths.max(initial=1)))
    if width * len(lengths) <= _WIDEST_TO_MEAN * lengths.sum() + _SMALL_ARRAY:
        dtype = np.dtype((np.str_, width))
        encoded = (np.array(member.record_id, dtype).tobytes() for member in read_members(members))
        _write_array(archive, "ids", dtype, len(lengths), encoded)
        return
    sizes = [len(member.record_id.encode()) for member in read_members(members)]
    texts = (member.record_id.encode() for member in read_members(members))
    _write_array(archive, "ids_utf8", np.dtype(np.uint8), sum(sizes), texts)
    _write_offsets(archive, "id_offsets", sizes)


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], num_items: int, parts: Iterable[bytes]
) -> None:
    """Write a flat array whose bytes come in parts."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (num_items,)}
    with _npz_member(archive, name) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part)


def make_h5(
    target: Path, rows: Path, members: Path, model_name: str, *, per_residue: bool, names: H5Names = "id"
) -> None:
    """Make an HDF5 file of an array of rows: a dataset per protein, in their order.

    Its attributes are `original_id` and `row`, from 1.

    Args:
        target: the file to be; an HDF5 file whose writer was killed cannot be opened, so it is made at the end.
        rows: a `.npy` file.
        members: see `read_members`.
        model_name: the root's attribute.
        per_residue: whether a protein has many rows.
        names: `id` names a dataset by the protein's identifier, or by `dataset_name` where HDF5 has no such name or
            several proteins have it; `hash` names all by `dataset_name`. A name that is there already is followed by
            `.` and the row, from 1.
    """
    has_own_name = _nameable(members) if names == "id" else None
    with ExitStack() as stack:
        file = stack.enter_context(hdf5_file(target))
        file.attrs["model_name"] = model_name
        source = stack.enter_context(rows.open("rb"))
        np.lib.format.read_magic(source)
        (_, dim), _, dtype = np.lib.format.read_array_header_1_0(source)
        for row, member in enumerate(read_members(members), start=1):
            vectors = np.fromfile(source, dtype, member.num_rows * dim).reshape(member.num_rows, dim)
            name = member.record_id if has_own_name is not None and has_own_name[row - 1] else member.name
            name = name if name not in file else f"{name}.{row}"
            dataset = file.create_dataset(name, data=vectors if per_residue else vectors[0])
            # HDF5's strings end at a NUL, and h5py refuses one.
            dataset.attrs["original_id"] = member.record_id.replace("\x00", "\\x00")
            dataset.attrs["row"] = row


def _nameable(members: Path) -> NDArray[np.bool_]:
    """Find the proteins whose identifier no other has, and HDF5 takes for a name, (proteins,)."""
    digests = b"".join(sequence_sha256(member.record_id)[:8] for member in read_members(members))
    _, inverse, counts = np.unique(np.frombuffer(digests, np.uint64), return_inverse=True, return_counts=True)
    is_legal = np.fromiter((_is_legal_name(member.record_id) for member in read_members(members)), dtype=np.bool_)
    return np.asarray(is_legal & (counts[inverse] == 1))


def _is_legal_name(text: str) -> bool:
    # HDF5 takes slashes for folders, and `.` for the folder itself; a terminal that lists names obeys control codes.
    return text not in (".", "..") and len(text) <= _LONGEST_NAME and text.isprintable() and "/" not in text


# Reading back


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what numpy and zipfile raise of a damaged file into a ValueError, as for other formats."""
    try:
        yield
    except (EOFError, StopIteration, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from error


@_damage()
def read_vectors(
    path: Path, format_name: FormatName, rows: Mapping[int, Sequence[str]], *, per_residue: bool
) -> dict[int, NDArray[Any]]:
    """Read some proteins' vectors of a result, and of a large file no more than those.

    Args:
        path: the result.
        format_name: how it is stored.
        rows: which proteins, from 0, and the names that each one's dataset in HDF5 may have, the likeliest first.
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
            embeddings = _npz_array(path, "embeddings")
            if not per_residue:
                return {row: np.array(embeddings[row]) for row in rows}
            offsets = _npz_array(path, "offsets")
            return {row: np.array(embeddings[offsets[row] : offsets[row + 1]]) for row in rows}
        case "h5":
            with h5py.File(path, "r") as file:
                return {row: file[_name_in(file, names)][:] for row, names in rows.items()}


def _name_in(file: h5py.File, names: Sequence[str]) -> str:
    """Choose the name that a dataset has; HDF5 finds `a` under `a/.` and the root under `.`, which are no names."""
    return next(name for name in names if _is_legal_name(name) and name in file)


def _npz_array(path: Path, name: str) -> NDArray[Any]:
    """Map an uncompressed array of a `.npz` into memory, read-only."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        start = archive.getinfo(f"{name}.npy").header_offset
        # The header that stands before the member itself, 30 bytes with the lengths of its name and extra field last.
        stream.seek(start + 26)
        stream.seek(start + 30 + sum(struct.unpack("<HH", stream.read(4))))
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if not np.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", stream.tell(), shape)


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
            return len(_npz_array(path, "offsets")) - 1 if per_residue else len(_npz_array(path, "embeddings"))
        case "h5":
            with h5py.File(path, "r") as file:
                return len(file)
