"""The files of a scan: the table of all mutants, the matrix of all scores, and the table of proteins."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from protembed.data.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from protembed.io.arrays import write_header
from protembed.io.delimited import COMMENT
from protembed.io.writing import atomic_file, write_table
from protembed.scoring.protein_scan import ProteinScan
from protembed.text import format_row

_PROTEIN_COLUMNS = ("row", "id", "residues", "positions", "mean_score", "favoured", "best", "best_score", "structure")


class ScanWriter:
    """Writes `scan.tsv` and `scan.npz` protein by protein, and `proteins.tsv` at the end; a context manager.

    `scan.npz` has `scores`, (positions of all proteins, 20), float32; `positions`, from 1, and `wild_types`, a letter
    each; `offsets`, (proteins + 1,), where each protein begins; and `amino_acids`, the letters of the columns.

    Args:
        directory: Directory of the result.
        num_positions: Number of scanned positions of all proteins.
        formula: What a score is, for the first line of the table.
        has_measurements: Whether the table has a column of measured values.
    """

    def __init__(self, directory: Path, num_positions: int, formula: str, *, has_measurements: bool) -> None:
        self._directory, self._num_positions, self._formula = directory, num_positions, formula
        self._has_measurements, self._stack = has_measurements, ExitStack()
        self._positions: list[np.ndarray[Any, Any]] = []
        self._wild_types: list[np.ndarray[Any, Any]] = []
        self._rows: list[Sequence[Any]] = []

    def __enter__(self) -> "ScanWriter":
        self._table = self._stack.enter_context(atomic_file(self._directory / "scan.tsv"))
        self._table.write(f"{COMMENT}score: {self._formula}\n".encode())
        measured = ["measured"] if self._has_measurements else []
        self._table.write(format_row(["id", "mutant", "score", *measured]))
        archive = self._stack.enter_context(atomic_file(self._directory / "scan.npz"))
        self._archive = self._stack.enter_context(zipfile.ZipFile(archive, "w"))
        self._scores = self._stack.enter_context(self._archive.open(_member("scores"), "w", force_zip64=True))
        write_header(self._scores, (self._num_positions, NUM_AMINO_ACIDS), np.dtype(np.float32))
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        if exception[0] is None:
            self._finish()
        return self._stack.__exit__(*exception)

    def add(self, scan: ProteinScan, structure: str) -> None:
        """Write the next protein.

        Args:
            scan: Its scan.
            structure: File of the structure with its means, relative to the directory; empty without one.
        """
        self._table.writelines(self._lines(scan))
        self._scores.write(scan.scores.astype(np.float32).tobytes())
        self._positions.append((scan.positions + 1).astype(np.int32))
        self._wild_types.append(scan.wild_types.astype(np.uint8))
        (best,) = scan.best(1)
        self._rows.append(
            [
                *(scan.record.row + 1, scan.record.id, len(scan.record.sequence), len(scan.positions)),
                *(f"{scan.means.mean():.7g}", scan.num_favoured, best.mutation, f"{best.score:.7g}", structure),
            ]
        )

    def _lines(self, scan: ProteinScan) -> Iterator[bytes]:
        start = format_row([scan.record.id])[:-1]
        for mutation, score in scan.mutants():
            cells = [f"{mutation}", f"{score:.7g}"]
            if self._has_measurements:
                value = scan.measured_value(mutation)
                cells.append("" if value is None else f"{value:.9g}")
            yield start + b"\t" + "\t".join(cells).encode() + b"\n"

    def _finish(self) -> None:
        """Add the other arrays of the archive, and write the table of proteins."""
        self._scores.close()
        empty = np.empty(0, np.int32)
        letters = np.array(list(AMINO_ACIDS))
        wild_types = np.concatenate([empty, *self._wild_types]).astype(np.int64)
        sizes = np.array([len(positions) for positions in self._positions], np.int64)
        arrays = {
            "positions": np.concatenate([empty, *self._positions]),
            "wild_types": letters[wild_types],
            "offsets": np.concatenate([np.zeros(1, np.int64), sizes.cumsum()]),
            "amino_acids": letters,
        }
        for name, array in arrays.items():
            with self._archive.open(_member(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        write_table(self._directory / "proteins.tsv", _PROTEIN_COLUMNS, self._rows)


def _member(name: str) -> zipfile.ZipInfo:
    # The default date of ZipInfo is a constant, so that the same scores give the same bytes.
    return zipfile.ZipInfo(f"{name}.npy")
