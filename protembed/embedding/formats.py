"""The formats in which vectors are stored, and how a result is made from rows that grow on disk."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protembed.config.embed import FormatName, H5Names
from protembed.data.hashing import hash_texts, sequence_sha256
from protembed.errors import ConfigError
from protembed.io.arrays import hdf5_file, read_header, write_header
from protembed.io.output_paths import check_not_a_device
from protembed.io.reading import STANDARD_STREAM
from protembed.io.writing import atomic_file
from protembed.text import format_row

_PER_PROTEIN: tuple[FormatName, ...] = ("npy", "npz", "tsv", "h5")
_PER_RESIDUE: tuple[FormatName, ...] = ("npz", "h5")
# A requested format is taken at its word under any other suffix, such as the .dat of Galaxy, but not under these.
_OTHER_FORMATS = (".csv", ".xlsx", ".json", ".parquet", ".pt", ".pkl", ".gz", ".bz2", ".xz", ".zst", ".zip", ".fasta")
_COPY_BLOCK = 1 << 20
# An array of strings of equal width takes four bytes per letter of the longest one. It is used up to this ratio of the
# longest to the mean length, or up to this total number of letters.
_MAX_WIDTH_TO_MEAN, _SMALL_ARRAY = 4, 1 << 20
# Attribute of a dataset in a shard: its name from `dataset_name`. In the whole result another protein may have the same
# identifier, and then the datasets of both are named by this hash.
SEQUENCE_HASH = "sequence_hash"
# Maximum length of a dataset's name in HDF5; a longer identifier is likely a mistake, and unwieldy.
_MAX_DATASET_NAME = 1000


def choose_format(output: Path, requested: FormatName | None, *, per_residue: bool) -> FormatName:
    """Choose the format of a result by the suffix of its name; on stdout, and under other suffixes, the requested one.

    Raises:
        ConfigError: The suffix is not that of a format, contradicts the requested format, or is that of a format
            that cannot hold such vectors.
    """
    formats = _PER_RESIDUE if per_residue else _PER_PROTEIN
    if output == STANDARD_STREAM and requested == "h5":
        raise ConfigError("format", "h5", "HDF5 cannot be written to stdout: name a file, or use `format` npz")
    check_not_a_device(output)
    says_nothing = output.suffix.lower() not in ("", *_OTHER_FORMATS, *(f".{name}" for name in _PER_PROTEIN))
    is_taken_at_its_word = requested in formats and says_nothing and not output.is_dir()
    suffix = output.suffix.removeprefix(".")
    if output == STANDARD_STREAM or is_taken_at_its_word:
        suffix = requested or formats[0]
    what = "one vector per residue" if per_residue else "one vector per protein"
    expected = f"{what} is written as {', '.join(formats[:-1])} or {formats[-1]}"
    if suffix not in formats:
        if output == STANDARD_STREAM:
            raise ConfigError("format", requested, expected)
        example = requested if requested in formats else formats[0]
        if output.is_dir():
            expected = f"this is a directory: name a file, such as {output / f'embeddings.{example}'}"
            raise ConfigError("output", str(output), expected)
        raise ConfigError("output", str(output), f"{expected}: name it, for example, {output.stem}.{example}")
    if requested not in (None, suffix):
        raise ConfigError("format", requested, f"the suffix of {output.name!r} means {suffix}; {expected}")
    return next(name for name in formats if name == suffix)


# Names


def column_names(slices: Sequence[dict[str, Any]]) -> list[str]:
    """Name the columns of a protein's vector, after pooling and layer where there are several.

    >>> column_names([{"pooling": "mean", "layer": 6, "start": 0, "stop": 2}])
    ['dim_1', 'dim_2']
    """
    names = []
    for part in slices:
        prefix = "dim" if len(slices) == 1 else f"{part['pooling']}_layer{part['layer']}"
        names += [f"{prefix}_{number + 1}" for number in range(part["stop"] - part["start"])]
    return names


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


# Making a result from an array of rows


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


def convert(rows: ProteinRows, target: Path, fingerprint: Mapping[str, Any]) -> None:
    """Convert rows to the format of a result, with its `slices`, `model_name`, `h5_names` and `shard`.

    If the format is `.npy`, the rows are the result.
    """
    match fingerprint["format"]:
        case "tsv":
            make_tsv(target, rows, column_names(fingerprint["slices"]))
        case "npz":
            make_npz(target, rows)
        case "h5":
            is_shard = fingerprint["shard"] is not None
            make_h5(target, rows, fingerprint["model_name"], fingerprint["h5_names"], is_shard=is_shard)


def table_lines(record_id: str, vectors: NDArray[Any]) -> Iterator[bytes]:
    """Format vectors, (rows, dim), as lines of a TSV: the identifier and the numbers of each vector."""
    for vector in vectors:
        # Numpy's scalars are printed with the fewest digits that read back as the same number.
        yield format_row([record_id, *map(str, vector)])


def make_tsv(target: Path, rows: ProteinRows, columns: Sequence[str]) -> None:
    """Make a TSV: a line for each row, after the names of the columns."""
    with atomic_file(target) as stream:
        stream.write(format_row(["id", *columns]))
        for group, vectors in rows.vectors():
            stream.writelines(table_lines(group.record_id, vectors))


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


def make_npz(target: Path, rows: ProteinRows, small_array: int = _SMALL_ARRAY) -> None:
    """Make a `.npz`: `embeddings`, with `offsets`, (proteins + 1,), per residue, else with `ids`.

    If a few identifiers are much longer than the others, an array of strings, all as wide as the longest, would be far
    larger than the vectors. In that case `ids_utf8`, (bytes,) uint8, and `id_offsets`, (proteins + 1,) int64, replace
    `ids`, unless these have no more than `small_array` letters.
    """
    with atomic_file(target) as stream, zipfile.ZipFile(stream, "w") as archive:
        with _npz_member(archive, "embeddings") as member, rows.array.open("rb") as source:
            while block := source.read(_COPY_BLOCK):
                member.write(block)
        if rows.per_residue:
            _write_offsets(archive, "offsets", (group.num_rows for group in rows.groups()))
        else:
            _write_ids(archive, rows, small_array)


def _nameable(rows: ProteinRows) -> NDArray[np.bool_]:
    """Find the proteins whose identifier is unique and a legal name in HDF5, (proteins,)."""
    hashes = hash_texts(group.record_id for group in rows.groups())
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    is_legal = np.fromiter((is_legal_dataset_name(group.record_id) for group in rows.groups()), dtype=np.bool_)
    return np.asarray(is_legal & (counts[inverse] == 1))


def make_h5(target: Path, rows: ProteinRows, model_name: str, names: H5Names = "id", *, is_shard: bool = False) -> None:
    """Make an HDF5 file: a dataset per protein, in their order, with the attributes `original_id` and `row`, from 1.

    HDF5 cannot open a file whose writer was killed, so it is made at the end. The name of the model is an attribute of
    the root. `id` names a dataset by the protein's identifier, or by `dataset_name` if the identifier is not unique or
    not a legal name; `hash` names all by `dataset_name`. A name that is already taken is followed by `.` and the row,
    from 1. In a shard, a dataset that is named by the identifier has the attribute `sequence_hash` too.
    """
    is_named_by_id = _nameable(rows) if names == "id" else None
    with hdf5_file(target) as file:
        file.attrs["model_name"] = model_name
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
