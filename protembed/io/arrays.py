"""Arrays on disk in the formats of numpy and HDF5, without pickle."""

import hashlib
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from protembed.errors import OutputError
from protembed.io.writing import atomic_file

if TYPE_CHECKING:
    import h5py

# Rows of a map that are converted and written at once.
_ROWS_PER_BLOCK = 128
# Reading a row alone takes about as long as reading so many rows that follow one another.
_SPARSE = 8


class ArrayStream:
    """A `.npy` file to which rows are appended before their number is known.

    Args:
        stream: Seekable binary file, empty or positioned at the end of the stored rows.
        row_shape: Shape of one row; () for a flat array.
        dtype: Type of the numbers.
        num_rows: Number of rows that the stream already contains.
    """

    def __init__(self, stream: BinaryIO, row_shape: tuple[int, ...], dtype: DTypeLike, *, num_rows: int = 0) -> None:
        self._stream, self._row_shape, self._dtype = stream, row_shape, np.dtype(dtype)
        self.num_rows = num_rows
        if num_rows == 0:
            self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, (rows, *row_shape), converted to the dtype of the array."""
        self._stream.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.num_rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows into the header, which completes the file."""
        end = self._stream.tell()
        self._stream.seek(0)
        self._write_header()
        self._stream.seek(end)

    def _write_header(self) -> None:
        # numpy pads the header so that the length of the first axis can grow without moving a byte.
        write_header(self._stream, (self.num_rows, *self._row_shape), self._dtype)


def write_header(stream: IO[bytes], shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
    """Write the header of a `.npy` file, which its numbers follow."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    """Read the shape and the dtype of a `.npy` file, and stop where its numbers begin."""
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype


@contextmanager
def array_file(path: Path, row_shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[ArrayStream]:
    """Open a `.npy` file for appending rows; it appears under its name, complete, at the end."""
    with atomic_file(path) as stream:
        array = ArrayStream(stream, row_shape, dtype)
        yield array
        array.finish()


class _ErrorHoldingStream:
    """A stream that stores its first error instead of raising it, and drops everything written after it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stream, name)

        def call(*arguments: Any) -> Any:
            if self.error is None or name not in ("write", "flush", "truncate"):
                try:
                    return method(*arguments)
                except OSError as error:
                    self.error = self.error or error
            return 0

        return call


@contextmanager
def hdf5_file(path: Path) -> Iterator["h5py.File"]:
    """Open an HDF5 file for writing; it appears under its name, complete, at the end.

    Its datasets are listed in the order in which they are written. If HDF5 cannot close a file, it later ends the
    process by a segmentation fault. Errors such as a full disk are therefore not passed to HDF5, but raised after it
    has closed the file.

    Raises:
        OutputError: The file cannot be written.
    """
    import h5py

    with atomic_file(path) as stream:
        holder = _ErrorHoldingStream(stream)
        try:
            with h5py.File(holder, "w", track_order=True) as file:
                yield file
        finally:
            if holder.error is not None:
                raise holder.error


class MapFile:
    """A file of attention maps that is written layer by layer: `.npz`, uncompressed, or `.h5`.

    After an error the caller must abandon it.

    Args:
        path: Final path, where the file appears when `close` is called.
        shape: Shape of the array `attention`, (layers, heads, residues, residues).
        dtype: Type of the stored numbers.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int], dtype: DTypeLike) -> None:
        self._stack, self._dtype, self._num_written = ExitStack(), np.dtype(dtype), 0
        self._is_hdf5, self._is_closed = path.suffix == ".h5", False
        if self._is_hdf5:
            self._hdf5 = self._stack.enter_context(hdf5_file(path))
            self._maps = self._hdf5.create_dataset("attention", shape, self._dtype, track_times=False)
            return
        self._zip = self._stack.enter_context(zipfile.ZipFile(self._stack.enter_context(atomic_file(path)), "w"))
        self._member = self._zip.open("attention.npy", "w", force_zip64=True)
        write_header(self._member, shape, self._dtype)

    def append(self, maps: Iterable[NDArray[np.floating]]) -> None:
        """Write the next layer: a map for each head, (residues, residues)."""
        for index, head in enumerate(maps):  # one head at a time, and in blocks of rows: a layer may be large
            if self._is_hdf5:
                self._maps[self._num_written, index] = head.astype(self._dtype)
            else:
                for start in range(0, len(head), _ROWS_PER_BLOCK):
                    self._member.write(np.ascontiguousarray(head[start : start + _ROWS_PER_BLOCK], self._dtype).data)
        self._num_written += 1

    def close(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add other arrays to the file, and rename it to its final name; do nothing if it is already closed."""
        if self._is_closed:
            return
        if self._is_hdf5:
            for name, array in arrays.items():
                self._hdf5.create_dataset(name, data=array, track_times=False)
        else:
            self._member.close()
            for name, array in arrays.items():
                with self._zip.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        self._stack.close()
        self._is_closed = True

    def abandon(self) -> None:
        """Remove a file that is not closed, without the messages that destructors of zip archives print on stderr."""
        if self._is_closed:
            return
        self._is_closed = True
        for stream in () if self._is_hdf5 else (self._member, self._zip):
            with suppress(OSError, ValueError):
                stream.close()
        with suppress(OSError, OutputError):
            self._stack.__exit__(InterruptedError, InterruptedError(), None)


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file, parts of which are read when they are used.

    They are read and not mapped: of a mapped file, much more than was used counts as memory of the process.

    Attributes:
        path: Path of the file.
        dtype: Type of the numbers.
        shape: Shape of the array.
        offset: Where its numbers begin, in bytes.
    """

    path: Path
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def from_mapped(cls, array: NDArray[Any]) -> "ArrayFile":
        """Describe an array that was mapped into memory as a whole."""
        assert isinstance(array, np.memmap), "the array is in a file"
        return cls(Path(str(array.filename)), array.dtype, array.shape, array.offset)

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Read consecutive rows, as many as there are."""
        row = math.prod(self.shape[1:])
        number = max(0, min(stop, len(self)) - start)
        begin = self.offset + start * row * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, number * row, offset=begin).reshape(-1, *self.shape[1:])

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read the rows of some numbers, with the rows between them where they are close to one another."""
        if len(rows) and (first := int(rows.min())) + _SPARSE * len(rows) > (last := int(rows.max())):
            return self.rows(first, last + 1)[rows - first]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *self.spans(rows, np.ones_like(rows))])

    def spans(self, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Read several groups of consecutive rows, each with its first row and its number of rows."""
        row, shape = math.prod(self.shape[1:]) * self.dtype.itemsize, self.shape[1:]
        with self.path.open("rb") as stream:
            file = stream.fileno()
            read = (
                os.pread(file, size * row, self.offset + start * row)
                for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
            )
            return [np.frombuffer(data, self.dtype).reshape(-1, *shape) for data in read]


def open_array(path: Path) -> NDArray[Any]:
    """Map a `.npy` file into memory, read-only, as a plain array: `numpy.memmap` is ten times slower to slice."""
    return np.asarray(np.load(path, mmap_mode="r"))


def hash_array(path: Path, digest: "hashlib._Hash") -> int:
    """Add the numbers of a `.npy` file, without its header, to a hash; return its number of rows."""
    with path.open("rb") as stream:
        (num_rows, *_), _ = read_header(stream)
        hashlib.file_digest(stream, lambda: digest)
    return num_rows
