"""What figures and the page show of a scan: residue by residue, those that were not scanned too."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS
from protembed.scoring.protein_scan import ProteinScan

# More residues of a protein are not drawn; `region` shows others.
MAX_RESIDUES = 2000
# The rows of a heat map: positive, negative, polar, special, aliphatic and aromatic amino acids.
ROWS = "HKRDESTNQCGPAVILMFWY"
ROW_COLUMNS = [AMINO_ACIDS.index(letter) for letter in ROWS]
# A few extreme values do not decide on the colours of all others.
_PERCENT_WITHIN_SCALE = 98


class Scale(NamedTuple):
    """A scale of colours with two ends: its centre, and the distance from it that has the full colour."""

    centre: float
    limit: float

    @classmethod
    def around(cls, centre: float, values: NDArray[np.floating]) -> Self:
        """Choose the limit so that nearly all values are within the scale; NaN does not count."""
        distances = np.abs(values[np.isfinite(values)] - centre)
        limit = float(np.percentile(distances, _PERCENT_WITHIN_SCALE)) if len(distances) else 0.0
        return cls(centre, limit or 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class DisplayedScan:
    """The residues of a scan from the first scanned one to the last, or to the last that is drawn.

    Attributes:
        first: Number of the first displayed residue, from 1.
        sequence: One letter for each displayed residue.
        log_probs: Log probabilities, (residues, 20), float32, nats; NaN where a residue was not scanned.
        scores: Scores, (residues, 20), float64, nats; NaN where a residue was not scanned.
        means: Mean score of the 19 substitutions, (residues,), float64, nats; NaN where a residue was not scanned.
        scale: Scale of the scores, with zero as its centre.
        measured: Measured values, (residues, 20), float64; NaN without one. None without measurements.
        measured_scale: Scale of the measured values; None without measurements.
        measured_centre: What the centre of that scale is: the wild type, or the median of all values.
        is_cut: Whether more residues were scanned.
    """

    id: str
    first: int
    sequence: str
    log_probs: NDArray[np.float32]
    scores: NDArray[np.float64]
    means: NDArray[np.float64]
    scale: Scale
    measured: NDArray[np.float64] | None
    measured_scale: Scale | None
    measured_centre: str
    is_cut: bool

    @classmethod
    def from_scan(cls, scan: ProteinScan, measured_wild_type: float | None = None) -> Self:
        """Choose the displayed residues of a scan.

        Args:
            scan: The scan.
            measured_wild_type: Measured value of the wild type, the centre of its scale; the median if None.
        """
        start, last = int(scan.positions[0]), int(scan.positions[-1])
        stop = min(last + 1, start + MAX_RESIDUES)
        shown = scan.positions < stop
        rows = scan.positions[shown] - start

        def spread(values: NDArray[np.floating]) -> NDArray[np.float64]:
            matrix = np.full((stop - start, *values.shape[1:]), np.nan)
            matrix[rows] = values[shown]
            return matrix

        measured = None if scan.measured is None else spread(scan.measured)
        measured_scale = None
        if measured is not None and scan.measured is not None:
            centre = float(np.nanmedian(scan.measured)) if measured_wild_type is None else measured_wild_type
            measured_scale = Scale.around(centre, scan.measured)
        return cls(
            id=scan.record.id,
            first=start + 1,
            sequence=scan.record.sequence[start:stop],
            log_probs=spread(scan.log_probs).astype(np.float32),
            scores=spread(scan.scores),
            means=spread(scan.means),
            scale=Scale.around(0.0, scan.scores[scan.scores != 0]),
            measured=measured,
            measured_scale=measured_scale,
            measured_centre="median" if measured_wild_type is None else "wild type",
            is_cut=stop <= last,
        )

    def wild_type_cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the cells of the wild type: residues, from 0 at the first displayed one, and rows of the heat map."""
        cells = [(residue, ROWS.index(letter)) for residue, letter in enumerate(self.sequence) if letter in ROWS]
        residues, rows = np.array(cells, np.int64).reshape(-1, 2).T
        return residues, rows
