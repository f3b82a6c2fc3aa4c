"""Measured single mutants, such as those of a deep mutational scan, beside the scan of their protein."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import InputConfig
from protembed.config.score import VariantTableConfig
from protembed.data.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from protembed.data.fasta import ReadStatistics
from protembed.errors import TableError
from protembed.evaluation.intervals import MetricWithInterval
from protembed.io.faults import Faults
from protembed.io.tables import column_names, find_column, is_missing
from protembed.scoring.baselines import (
    BLOSUM62,
    POSITION_INDEPENDENT,
    MeasuredComparison,
    SubstitutionMeans,
    blosum62,
)
from protembed.scoring.protein_scan import ProteinScan
from protembed.scoring.variants import Variant, VariantTable
from protembed.text import pluralize

_USUAL_NAMES = (
    *("dms_score", "score", "fitness", "effect", "measured", "measurement", "value", "activity", "target", "label"),
    *("enrichment", "log_enrichment", "ddg", "dg", "y"),
)
_COLUMN = {letter: column for column, letter in enumerate(AMINO_ACIDS)}
MODEL = "model"


@dataclass
class _Measured:
    """The measured values of one protein.

    Attributes:
        sums: Sums over the rows of each mutant, (residues, 20), float64.
        counts: Number of rows of each mutant, (residues, 20), int64.
        wild_type: Values of the wild type.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    wild_type: list[float] = field(default_factory=list)

    @classmethod
    def of_length(cls, num_residues: int) -> "_Measured":
        shape = (num_residues, NUM_AMINO_ACIDS)
        return cls(np.zeros(shape), np.zeros(shape, np.int64))


class Measurements:
    """The measured single mutants of a table, read as a whole; values of the same mutant are averaged.

    Args:
        path: CSV or TSV file of variants and measured values.
        proteins: Sequences of the proteins that are scanned, by identifier.
        config: Columns that the user named, and the offset of positions.
        reader: Policies for characters that are not amino acids.

    Attributes:
        column: Name of the column with the values.
        num_values: Number of single mutants with a value.

    Raises:
        TableError: There is no column of values, a value is no number, or no row has a single mutant and a value.
        DataError: A row, the header or a mutation does not fit the proteins.
    """

    def __init__(
        self, path: Path, proteins: Mapping[str, str], config: VariantTableConfig, reader: InputConfig
    ) -> None:
        # Rows that no scan has, such as insertions and stop codons, are left out whatever the policy.
        lenient = InputConfig(on_illegal="skip", gaps=reader.gaps)
        self._table = VariantTable(path, config, proteins, lenient, source="the scanned FASTA file")
        self._by_sequence: dict[str, _Measured] = {}
        self._num_several = self._num_missing = 0
        self._statistics = ReadStatistics()
        index = self._find_column(config.measured_column)
        self.column = self._table.header[index]
        with Faults() as faults:
            for variant in self._table.read(self._statistics, faults):
                self._add(variant, variant.cells[index])
        self.num_values = sum(int((measured.counts > 0).sum()) for measured in self._by_sequence.values())
        if not self.num_values:
            found = f"no row has a single mutation and a value in the column {self.column!r}"
            raise TableError(self._table.path, found, "give measured single mutants of a protein that is scanned")

    def _find_column(self, named: str | None) -> int:
        table = self._table
        index = find_column(table.header, table.path, "measured", _USUAL_NAMES, named, line=table.line)
        if index is None:
            found = f"no column of measured values among {column_names(table.header)}"
            raise TableError(table.path, found, "name it with `measured_column`", line=table.line)
        return index

    def _add(self, variant: Variant, cell: str) -> None:
        value = math.nan if is_missing(cell) else self._parse(cell, variant)
        if not math.isfinite(value):
            self._num_missing += 1
        elif len(variant.mutations) > 1 or variant.has_indels:
            self._num_several += 1
        else:
            measured = self._by_sequence.setdefault(variant.wild_type, _Measured.of_length(len(variant.wild_type)))
            for mutation in variant.substitutions:
                place = mutation.position - 1, _COLUMN[mutation.mutant]
                measured.sums[place] += value
                measured.counts[place] += 1
            if not variant.mutations:
                measured.wild_type.append(value)

    def _parse(self, cell: str, variant: Variant) -> float:
        try:
            return float(cell)
        except ValueError:
            name = ":".join(map(str, variant.mutations)) or "the wild type"
            found = f"{cell[:40]!r}, the value of {name} in the column {self.column!r}, is not a number"
            raise TableError(self._table.path, found, "correct it, or name the column with `measured_column`") from None

    def of(self, sequence: str, positions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return the values of a protein at some positions, from 0, (positions, 20); None if none was measured."""
        measured = self._by_sequence.get(sequence)
        if measured is None:
            return None
        counts = measured.counts[positions]
        values = np.where(counts > 0, measured.sums[positions] / np.maximum(counts, 1), np.nan)
        return values if np.isfinite(values).any() else None

    def wild_type(self, sequence: str) -> float | None:
        """Return the measured value of the wild type of a protein; None if it was not measured."""
        measured = self._by_sequence.get(sequence)
        return float(np.mean(measured.wild_type)) if measured is not None and measured.wild_type else None

    def notes(self) -> list[str]:
        """Describe what was read, in sentences."""
        left_out = {
            "several mutations, or inserted or deleted residues": self._num_several,
            "no value": self._num_missing,
            "no substitution that can be scored": len(self._statistics.skipped),
        }
        listed = [f"{pluralize(number, 'row')} with {what}" for what, number in left_out.items() if number]
        found = f"{pluralize(self.num_values, 'measured single mutant')} in the column {self.column!r}"
        return [*self._table.notes, found + (f"; left out: {', '.join(listed)}" if listed else "")]


def compare_with_measurements(scan: ProteinScan, column: str) -> MeasuredComparison:
    """Compare the ranks of a scan, of BLOSUM62, and of scores that know no position, with the measured values.

    The intervals are over positions, because the mutants of one position are not independent of each other.
    """
    assert scan.measured is not None, "the protein has measurements"
    rows, columns = np.nonzero(np.isfinite(scan.measured))
    wild_types = scan.wild_types[rows]
    means = SubstitutionMeans()
    means.add(scan.wild_types, scan.scores)
    _, groups = np.unique(rows, return_inverse=True)
    return MeasuredComparison.measure(
        column,
        scan.measured[rows, columns],
        {MODEL: scan.scores[rows, columns]},
        {BLOSUM62: blosum62()[wild_types, columns], POSITION_INDEPENDENT: means.matrix()[wild_types, columns]},
        groups.astype(np.int64),
        "single mutants",
    )


def model_spearman(comparisons: Sequence[MeasuredComparison]) -> list[MetricWithInterval]:
    """List the model's correlation with the measurements of each protein."""
    return [comparison.spearman[MODEL] for comparison in comparisons]
