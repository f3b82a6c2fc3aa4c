"""Rows of numbers of many proteins: growing on disk as one array, and converted to a packed `.npz` or to HDF5."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protembed.config.embed import H5Names
from protembed.data.hashing import hash_texts, sequence_sha256
from protembed.io.arrays import hdf5_file, read_header, write_header
from protembed.io.writing import atomic_file

_COPY_BLOCK = 1 << 20
# An array of strings of equal width takes four bytes per letter of the longest one. It is used up to this ratio of the
# longest to the mean length, or up to this total number of letters.
_MAX_WIDTH_TO_MEAN, _SMALL_ARRAY = 4, 1 << 20
# Attribute of a dataset in a shard: its name from `dataset_name`. In the whole result another protein may have the same
# identifier, and then the datasets of both are named by this hash.
SEQUENCE_HASH = "sequence_hash"
# Maximum length of a dataset's name in HDF5; a longer identifier is likely a mistake, and unwieldy.
_MAX_DATASET_NAME = 1000


# Names in HDF5


def dataset_name(sequence: str) -> str:
    """Name the dataset of a protein as biotrainer expects it: by a hash of the sequence and its length.

    The sequence is the one in the FASTA file, without white space.
    """
    return sequence_sha256(f"{sequence}_{len(sequence)}").hex()


def is_legal_dataset_name(text: str) -> bool:
    """Return whether a dataset may have a name.

    >>> is_legal_dataset_name("sp|P1|X_HUMAN"), is_legal_dataset_name("a/b")
    (True, False)
    """
    # HDF5 reads slashes as groups, and `.` as the group itself. Control codes could act on a terminal that lists names.
    return text not in (".", "..") and len(text) <= _MAX_DATASET_NAME and text.isprintable() and "/" not in text


# Rows


class RowGroup(NamedTuple):
    """The rows of one protein in an array of rows.

    Attributes:
        name: Name of the protein's dataset in HDF5, from `dataset_name`.
    """

    record_id: str
    num_rows: int
    name: str

    def line(self) -> bytes:
        """Format the group as a line of the file beside the growing rows."""
        return json.dumps(self).encode() + b"\n"


class ProteinRows(NamedTuple):
    """The rows of all proteins on disk.

    Attributes:
        array: Path of a `.npy` file, (rows, dim).
        members: Path of the file beside it, with a line for each protein.
    """

    array: Path
    members: Path
    per_residue: bool

    def groups(self) -> Iterator[RowGroup]:
        """Read which rows belong to each protein."""
        with self.members.open(encoding="utf-8") as stream:
            for line in stream:
                yield RowGroup(*json.loads(line))

    def vectors(self) -> Iterator[tuple[RowGroup, NDArray[Any]]]:
        """Read the vectors of each protein, (rows, dim)."""
        with self.array.open("rb") as stream:
            (_, dim), dtype = read_header(stream)
            for group in self.groups():
                yield group, np.fromfile(stream, dtype, group.num_rows * dim).reshape(group.num_rows, dim)


# Files


@contextmanager
def _npz_member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    # The default date of ZipInfo is a constant, so that the same vectors give the same bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        yield member


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], num_items: int, parts: Iterable[bytes]
) -> None:
    """Write a flat array from its bytes, given in parts."""
    with _npz_member(archive, name) as member:
        write_header(member, (num_items,), dtype)
        for part in parts:
            member.write(part)


def _write_offsets(archive: zipfile.ZipFile, name: str, sizes: Iterable[int]) -> None:
    offsets = np.concatenate([np.zeros(1, np.int64), np.fromiter(sizes, dtype=np.int64).cumsum()])
    _write_array(archive, name, offsets.dtype, len(offsets), [offsets.tobytes()])


def _write_ids(archive: zipfile.ZipFile, rows: ProteinRows, small_array: int) -> None:
    """Write identifiers as strings of equal width, or concatenated where that is much smaller."""
    lengths = np.fromiter((len(group.record_id) for group in rows.groups()), dtype=np.int64)
    width = max(1, int(lengths.max(initial=1)))
    if width * len(lengths) <= _MAX_WIDTH_TO_MEAN * lengths.sum() + small_array:
        dtype = np.dtype((np.str_, width))
        encoded = (np.array(group.record_id, dtype).tobytes() for group in rows.groups())
        _write_array(archive, "ids", dtype, len(lengths), encoded)
        return
    sizes = [len(group.record_id.encode()) for group in rows.groups()]
    texts = (group.record_id.encode() for group in rows.groups())
    _write_array(archive, "ids_utf8", np.dtype(np.uint8), sum(sizes), texts)
    _write_offsets(archive, "id_offsets", sizes)


def make_npz(
    target: Path,
    rows: ProteinRows,
    small_array: int = _SMALL_ARRAY,
    *,
    name: str = "embeddings",
    arrays: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Make a `.npz`: the rows, with `offsets`, (proteins + 1,), per residue, else with `ids`.

    If a few identifiers are much longer than the others, an array of strings, all as wide as the longest, would be far
    larger than the vectors. In that case `ids_utf8`, (bytes,) uint8, and `id_offsets`, (proteins + 1,) int64, replace
    `ids`, unless these have no more than `small_array` letters.

    Args:
        target: Path of the file.
        rows: The rows of all proteins.
        small_array: Letters up to which identifiers are strings of equal width.
        name: Name of the array of rows.
        arrays: Further arrays by their names. With them the identifiers are stored per residue too.
    """
    with atomic_file(target) as stream, zipfile.ZipFile(stream, "w") as archive:
        with _npz_member(archive, name) as member, rows.array.open("rb") as source:
            while block := source.read(_COPY_BLOCK):
                member.write(block)
        if rows.per_residue:
            _write_offsets(archive, "offsets", (group.num_rows for group in rows.groups()))
        if not rows.per_residue or arrays is not None:
            _write_ids(archive, rows, small_array)
        for array_name, array in (arrays or {}).items():
            _write_array(archive, array_name, array.dtype, len(array), [array.tobytes()])


def _nameable(rows: ProteinRows) -> NDArray[np.bool_]:
    """Find the proteins whose identifier is unique and a legal name in HDF5, (proteins,)."""
    hashes = hash_texts(group.record_id for group in rows.groups())
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    is_legal = np.fromiter((is_legal_dataset_name(group.record_id) for group in rows.groups()), dtype=np.bool_)
    return np.asarray(is_legal & (counts[inverse] == 1))


def make_h5(
    target: Path,
    rows: ProteinRows,
    model_name: str,
    names: H5Names = "id",
    *,
    is_shard: bool = False,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Make an HDF5 file: a dataset per protein, in their order, with the attributes `original_id` and `row`, from 1.

    HDF5 cannot open a file whose writer was killed, so it is made at the end. The name of the model is an attribute of
    the root. `id` names a dataset by the protein's identifier, or by `dataset_name` if the identifier is not unique or
    not a legal name; `hash` names all by `dataset_name`. A name that is already taken is followed by `.` and the row,
    from 1. In a shard, a dataset that is named by the identifier has the attribute `sequence_hash` too. The root has
    further `attributes`.
    """
    is_named_by_id = _nameable(rows) if names == "id" else None
    with hdf5_file(target) as file:
        file.attrs.update({"model_name": model_name, **(attributes or {})})
        for row, (group, vectors) in enumerate(rows.vectors(), start=1):
            by_id = is_named_by_id is not None and bool(is_named_by_id[row - 1])
            name = group.record_id if by_id else group.name
            name = name if name not in file else f"{name}.{row}"
            dataset = file.create_dataset(name, data=vectors if rows.per_residue else vectors[0])
            # HDF5's strings end at a NUL, and h5py does not write one.
            dataset.attrs["original_id"] = group.record_id.replace("\x00", "\\x00")
            dataset.attrs["row"] = row
            if is_shard and by_id:
                dataset.attrs[SEQUENCE_HASH] = group.name
