"""The vectors in the file of a finished result, read back without loading more of it than is needed."""

import re
import struct
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from protembed.config.embed import FormatName
from protembed.data.protein_rows import SEQUENCE_HASH, is_legal_dataset_name
from protembed.io.arrays import read_header

if TYPE_CHECKING:
    import h5py

_BLOCK = 1 << 20
# A name from `dataset_name`, and the row that is appended to the name of a copy.
_HASH_NAME = re.compile(r"([0-9a-f]{64})(\.\d+)?")


class StoredName(NamedTuple):
    """What the file of a result records about a protein, beside its vectors.

    Attributes:
        record_id: Identifier, as it is in the input; None if the format has none.
        hash_name: Name from `dataset_name`; None if it is not recorded.
    """

    record_id: str | None
    hash_name: str | None


@contextmanager
def _normalize_read_errors() -> Iterator[None]:
    """Turn the errors of numpy and zipfile about a damaged file into a ValueError, as for other formats."""
    try:
        yield
    except (EOFError, StopIteration, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from error


# Lines and arrays


def _numbers(line: str) -> NDArray[np.float32]:
    return np.array(line.rstrip("\n").split("\t")[1:], dtype=np.float32)


def _table_vectors(path: Path, rows: Collection[int] | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Read the rows of a table, from 0, each with its vector, (dim,); all of them if None are named."""
    requested = None if rows is None else set(rows)
    with path.open(encoding="utf-8") as stream:
        next(stream, None)
        for row, line in enumerate(stream):
            if requested is None or row in requested:
                yield row, _numbers(line)


@contextmanager
def _npz_member(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open a `.npz` where the header of an uncompressed array begins."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        start = archive.getinfo(f"{name}.npy").header_offset
        # The header before the member is 30 bytes long, and ends with the lengths of its name and its extra field.
        stream.seek(start + 26)
        stream.seek(start + 30 + sum(struct.unpack("<HH", stream.read(4))))
        yield stream


def _npz_array(path: Path, name: str) -> NDArray[Any]:
    """Map an uncompressed array of a `.npz` into memory, read-only."""
    with _npz_member(path, name) as stream:
        shape, dtype = read_header(stream)
        if not np.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", stream.tell(), shape)


def _blocks(stream: BinaryIO) -> Iterator[NDArray[Any]]:
    """Read an array whose header begins here, a block of rows at a time."""
    (num_rows, *row_shape), dtype = read_header(stream)
    row_bytes = dtype.itemsize * int(np.prod(row_shape))
    rows_per_block = max(1, _BLOCK // row_bytes)
    for start in range(0, num_rows, rows_per_block):
        num_bytes = row_bytes * min(rows_per_block, num_rows - start)
        data = stream.read(num_bytes)
        if len(data) < num_bytes:
            raise ValueError("it is truncated")
        yield np.frombuffer(data, dtype).reshape(-1, *row_shape)


def _npy_blocks(path: Path) -> Iterator[NDArray[Any]]:
    with path.open("rb") as stream:
        yield from _blocks(stream)


def _npz_blocks(path: Path, name: str) -> Iterator[NDArray[Any]]:
    with _npz_member(path, name) as stream:
        yield from _blocks(stream)


def _npz_ids(path: Path) -> Iterator[str]:
    """Read the identifiers of a `.npz`: strings of equal width, or concatenated ones."""
    with zipfile.ZipFile(path) as archive:
        has_equal_width = "ids.npy" in archive.namelist()
    if has_equal_width:
        for block in _npz_blocks(path, "ids"):
            yield from map(str, block)
        return
    letters = _npz_array(path, "ids_utf8")
    for start, stop in pairwise(_npz_array(path, "id_offsets")):
        yield letters[start:stop].tobytes().decode()


# HDF5


def _existing_name(file: "h5py.File", names: Sequence[str]) -> str:
    """Choose the name that a dataset has; HDF5 finds `a` as `a/.` and the root as `.`, which are not legal names."""
    return next(name for name in names if is_legal_dataset_name(name) and name in file)


def _names_by_row(file: "h5py.File") -> list[str]:
    """List the datasets by their rows: as they were written, unless an earlier version did not record that order."""
    names = list(file)
    if file["/"].id.get_create_plist().get_link_creation_order():
        return names
    rows = [int(file[name].attrs["row"]) for name in names]
    return [names[index] for index in np.argsort(rows, kind="stable")]


def _stored_names(path: Path) -> Iterator[StoredName]:
    import h5py

    with h5py.File(path, "r") as file:
        yield from (_stored_name(file[name]) for name in _names_by_row(file))


def _stored_name(dataset: "h5py.Dataset") -> StoredName:
    record_id, name = dataset.attrs["original_id"], dataset.name.removeprefix("/")
    match = None if name == record_id else _HASH_NAME.fullmatch(name)
    return StoredName(record_id, match[1] if match else dataset.attrs.get(SEQUENCE_HASH))


class Datasets(Sequence[NDArray[Any]]):
    """The datasets of an `.h5` file in the order of their rows, (dim,) or (residues, dim), read when they are used."""

    def __init__(self, path: Path) -> None:
        import h5py

        self._path = path
        with h5py.File(path, "r") as file:
            self._names = _names_by_row(file)
            # Earlier versions count rows from 0.
            self._first_row = min(1, int(file[self._names[0]].attrs["row"])) if self._names else 1

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, row: int) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[NDArray[Any]]: ...

    def __getitem__(self, row: int | slice) -> NDArray[Any] | list[NDArray[Any]]:
        rows = range(len(self))
        return [*self._read(rows[row])] if isinstance(row, slice) else next(self._read([rows[row]]))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self._read(range(len(self)))

    def _read(self, rows: Iterable[int]) -> Iterator[NDArray[Any]]:
        import h5py

        # The file is not kept open, so that it can be replaced meanwhile, and read by other processes after a fork.
        with h5py.File(self._path, "r") as file:
            for row in rows:
                dataset = file[self._names[row]]
                if dataset.attrs["row"] != row + self._first_row:
                    raise ValueError("its datasets are not in the order of their rows")
                yield dataset[:]


# All formats


@dataclass(frozen=True)
class StoredVectors:
    """The vectors in the file of a result; if it is damaged, the methods raise OSError, ValueError or KeyError."""

    path: Path
    format_name: FormatName
    per_residue: bool

    @_normalize_read_errors()
    def count(self) -> int:
        """Count the proteins."""
        match self.format_name:
            case "tsv":
                with self.path.open("rb") as stream:
                    return sum(1 for _ in stream) - 1
            case "h5":
                import h5py

                with h5py.File(self.path, "r") as file:
                    return len(file)
            case "npz" if self.per_residue:
                return len(_npz_array(self.path, "offsets")) - 1
            case _:
                return len(self.open())

    @_normalize_read_errors()
    def read(self, rows: Mapping[int, Sequence[str]]) -> dict[int, NDArray[Any]]:
        """Read the vectors of some proteins, (dim,) or (residues, dim), without reading the whole of a large file.

        Args:
            rows: Rows of the proteins, from 0, each with the names that its dataset in HDF5 may have, the likeliest
                first.
        """
        match self.format_name:
            case "tsv":
                return dict(_table_vectors(self.path, rows))
            case "h5":
                import h5py

                with h5py.File(self.path, "r") as file:
                    return {row: file[_existing_name(file, names)][:] for row, names in rows.items()}
            case _:
                vectors = self.open()
                return {row: np.array(vectors[row]) for row in rows}

    @_normalize_read_errors()
    def open(self) -> NDArray[Any] | Sequence[NDArray[Any]]:
        """Open all vectors, (proteins, dim); per residue, a sequence of arrays, (residues, dim), one per protein.

        They stay on disk until they are used, except those of `.tsv`, and of `.h5` per protein.
        """
        vectors: NDArray[Any]
        match self.format_name:
            case "npy":
                vectors = np.load(self.path, mmap_mode="r", allow_pickle=False)
            case "tsv":
                vectors = np.stack([vector for _, vector in _table_vectors(self.path)])
            case "npz":
                vectors = _npz_array(self.path, "embeddings")
                if self.per_residue:
                    return [vectors[start:stop] for start, stop in pairwise(_npz_array(self.path, "offsets"))]
            case "h5":
                datasets = Datasets(self.path)
                if self.per_residue:
                    return datasets
                vectors = np.stack([*datasets])
        return vectors

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read the vectors of all proteins in their order, (rows, dim), a block of rows at a time."""
        with _normalize_read_errors():
            yield from self._blocks()

    def _blocks(self) -> Iterator[NDArray[Any]]:
        match self.format_name:
            case "npy":
                return _npy_blocks(self.path)
            case "npz":
                return _npz_blocks(self.path, "embeddings")
            case "tsv":
                return (vector[np.newaxis] for _, vector in _table_vectors(self.path))
            case "h5":
                return map(np.atleast_2d, Datasets(self.path))

    def names(self) -> Iterator[StoredName]:
        """Read what the file records about each protein; without end, and nothing, if its format records nothing."""
        with _normalize_read_errors():
            yield from self._names()

    def _names(self) -> Iterator[StoredName]:
        match self.format_name:
            case "npz" if not self.per_residue:
                return (StoredName(record_id, None) for record_id in _npz_ids(self.path))
            case "h5":
                return _stored_names(self.path)
            case _:
                return repeat(StoredName(None, None))
