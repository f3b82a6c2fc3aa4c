"""The formats in which vectors are stored, and how a result is made from rows that grow on disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from protembed.config.embed import FormatName
from protembed.data.protein_rows import ProteinRows, make_h5, make_npz
from protembed.errors import ConfigError
from protembed.io.output_paths import check_not_a_device
from protembed.io.reading import STANDARD_STREAM
from protembed.io.writing import atomic_file
from protembed.text import format_row

_PER_PROTEIN: tuple[FormatName, ...] = ("npy", "npz", "tsv", "h5")
_PER_RESIDUE: tuple[FormatName, ...] = ("npz", "h5")
# A requested format is taken at its word under any other suffix, such as the .dat of Galaxy, but not under these.
_OTHER_FORMATS = (".csv", ".xlsx", ".json", ".parquet", ".pt", ".pkl", ".gz", ".bz2", ".xz", ".zst", ".zip", ".fasta")


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


# Making a result from an array of rows


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
