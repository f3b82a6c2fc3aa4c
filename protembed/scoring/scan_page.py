"""The page of a scan: a heat map of each of the first proteins, the best mutants, and measured values beside them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import AMINO_ACIDS
from protembed.report.compression import compress
from protembed.report.design import COLOURS, scale_colours
from protembed.report.page import Card, Element, Page, Section, Widget, render_page
from protembed.report.table import Column, Prose, Table
from protembed.scoring.baselines import MeasuredComparison
from protembed.scoring.displayed_scan import MAX_RESIDUES, ROWS, DisplayedScan
from protembed.scoring.protein_scan import ProteinScan
from protembed.text import (
    as_sentence,
    format_decimals,
    format_number,
    format_share,
    format_with_interval,
    pluralize,
    printable,
)

# A page of these many proteins, each of the most residues, has about 4 MB.
MAX_PROTEINS = 20
_NUM_BEST = 10
_NUM_INTOLERANT = 5
_SCRIPTS = ("drawing.js", "scan_map.js", "scan.js")
_MEASURED_SCRIPT = "scan_scatter.js"
_ABOUT_SCORES: Prose = (
    "A score is log p(mutant) − log p(wild type), in nats: 0 is as likely as the wild type, and each unit below is 2.7 "
    "times less likely. It says what the model expects at a position, which is not the same as what an assay measures: "
    "`docs/score.md` says when to believe it."
)
_ABOUT_BEST: Prose = (
    "The ten mutants with the highest scores of each protein. Mutants that are better than the wild type in the model "
    "are often those of residues that are unusual in the family; look at their positions in the heat map first."
)


class _BestMutant(NamedTuple):
    """A row of the table of the best mutants: protein, mutation, score, mean of the position and measured value."""

    protein: str
    mutation: str
    score: float
    mean: float
    measured: float | None


class ScanPage:
    """Collects proteins one at a time, holding only what the page stores of them, and renders the page."""

    def __init__(self) -> None:
        self._proteins: list[dict[str, Any]] = []
        self._best: list[_BestMutant] = []
        self._comparisons: list[tuple[str, MeasuredComparison]] = []
        self._num_mutants = self._num_favoured = 0
        self._is_cut = False
        self._intolerant: list[str] = []  # the positions of the first protein with the lowest means

    @property
    def num_proteins(self) -> int:
        """Number of added proteins."""
        return len(self._proteins)

    def add(self, scan: ProteinScan, displayed: DisplayedScan, comparison: MeasuredComparison | None = None) -> None:
        """Add a protein, and what is shown of it; its arrays are not held."""
        name = printable(scan.record.id)
        measured = displayed.measured
        self._proteins.append(
            {
                # Characters that reverse the reading direction would make one identifier look like another.
                "id": name,
                "sequence": displayed.sequence,
                "first": displayed.first,
                "logProbs": _encode(displayed.log_probs),
                "scale": list(displayed.scale),
                "measured": None if measured is None else _encode(measured),
                "measuredScale": displayed.measured_scale and list(displayed.measured_scale),
                "measuredCentre": displayed.measured_centre,
                "spearman": "" if comparison is None else _spearman(comparison),
            }
        )
        if not self._intolerant:
            lowest = np.argsort(scan.means, kind="stable")[:_NUM_INTOLERANT]
            self._intolerant = [_residue_name(scan, int(row)) for row in lowest]
        self._num_mutants += scan.num_mutants
        self._num_favoured += scan.num_favoured
        self._is_cut |= displayed.is_cut
        for mutant in scan.best(_NUM_BEST):
            row = int(np.searchsorted(scan.positions, mutant.mutation.position - 1))
            mean, value = float(scan.means[row]), scan.measured_value(mutant.mutation)
            self._best.append(_BestMutant(name, str(mutant.mutation), mutant.score, mean, value))
        if comparison is not None:
            self._comparisons.append((name, comparison))

    def render(self, title: str, facts: dict[str, str], num_proteins: int, notes: Sequence[str]) -> str:
        """Render the page of at least one protein.

        Args:
            title: Title of the page.
            facts: What was run on what, by name.
            num_proteins: Number of proteins that were scanned, displayed or not.
            notes: Notes and warnings about the input and the model.

        Returns:
            HTML that needs no other file and no network; the same bytes for the same values.
        """
        assert self._proteins, "a page shows at least one protein"
        page = Page(
            title=title,
            command="score",
            facts={**facts, "Shown": self._shown(num_proteins)},
            summary=self._summary(num_proteins),
            cards=self._cards(),
            sections=self._sections(),
            notes=[as_sentence(note) for note in notes],
            scripts=(*_SCRIPTS, _MEASURED_SCRIPT) if self._comparisons else _SCRIPTS,
            data=self._data(),
        )
        return render_page(page)

    def _shown(self, num_proteins: int) -> str:
        """Say which proteins and residues the page shows."""
        shown = pluralize(self.num_proteins, "protein")
        if num_proteins > self.num_proteins:
            shown = f"the first {self.num_proteins} of {num_proteins:,} proteins; `scan.tsv` has all"
        if self._is_cut:
            shown += f"; of each at most {MAX_RESIDUES:,} residues, and `--region` shows others"
        return shown

    def _summary(self, num_proteins: int) -> list[Prose]:
        first, share = self._best[0], format_share(self._num_favoured / self._num_mutants)
        of = " of the proteins below" if num_proteins > self.num_proteins else ""
        found = (
            f"The model finds {self._num_favoured:,} of {pluralize(self._num_mutants, 'single mutant')}{of} ({share}) "
            f"likelier than the wild type. Of {first.protein}, {first.mutation} scores highest "
            f"({format_decimals(first.score, 2, signed=True)} nats)"
        )
        return [f"{found}, and substitutions cost most, on average, at {', '.join(self._intolerant)}."]

    def _cards(self) -> list[Card]:
        num_residues = sum(len(protein["sequence"]) for protein in self._proteins)
        share = format_share(self._num_favoured / self._num_mutants)
        cards = [
            Card(name="single mutants", value=f"{self._num_mutants:,}", note=pluralize(num_residues, "residue")),
            Card(name="likelier than the wild type", value=f"{self._num_favoured:,}", note=share),
        ]
        for name, comparison in self._comparisons[:2]:
            metric = next(iter(comparison.spearman.values()))
            interval = "" if metric.low is None else f"95 % interval {metric.low:.3f} to {metric.high:.3f}"
            title = f"Spearman with {comparison.column}"
            cards.append(
                Card(
                    name=f"{title} of {name}" if len(self._comparisons) > 1 else title,
                    value=format_number(metric.value),
                    note=interval,
                )
            )
        return cards

    def _sections(self) -> list[Section]:
        sections = [
            Section(title="The heat map", body=[_ABOUT_SCORES, Widget(template="scan.html")]),
            Section(title="Mutants to try", body=[_ABOUT_BEST, self._best_table()]),
        ]
        if self._comparisons:
            elements: list[Element] = [Widget(template="scan_scatter.html")]
            elements += [as_sentence(line) for _, comparison in self._comparisons for line in comparison.lines()[1:]]
            sections.append(Section(title="Compared with measurements", body=[*elements, self._comparison_table()]))
        return sections

    def _best_table(self) -> Table:
        columns = [
            Column(name="protein", cells=[best.protein for best in self._best]),
            Column(name="mutant", cells=[best.mutation for best in self._best]),
            Column(name="score (nats)", cells=[best.score for best in self._best], shade="diverging", decimals=3),
            Column(
                name="mean of the position (nats)",
                cells=[best.mean for best in self._best],
                shade="diverging",
                decimals=3,
                note="Mean score of the 19 substitutions there: far below zero where the model expects one residue.",
            ),
        ]
        if self._comparisons:
            columns.append(Column(name="measured", cells=[best.measured for best in self._best]))
        return Table(title="The ten best mutants of each protein", columns=columns)

    def _comparison_table(self) -> Table:
        rows = [
            (name, predictor, metric, comparison.differences.get(predictor), comparison)
            for name, comparison in self._comparisons
            for predictor, metric in comparison.spearman.items()
        ]
        return Table(
            title="Rank correlation with the measured values",
            note=(
                "Spearman's correlation, with its 95 % interval over positions. BLOSUM62 and the position-independent "
                "score, the model's mean for each pair of amino acids, know nothing about single positions."
            ),
            columns=[
                Column(name="protein", cells=[name for name, *_ in rows]),
                Column(name="predictor", cells=[predictor for _, predictor, *_ in rows]),
                Column(name="Spearman", cells=[metric for *_, metric, _, _ in rows], best="high"),
                Column(name="model better by", cells=[difference for *_, difference, _ in rows]),
                Column(name="variants", cells=[comparison.num_variants for *_, comparison in rows]),
            ],
        )

    def _data(self) -> dict[str, Any]:
        """Collect what the scripts read."""
        return {
            "aminoAcids": AMINO_ACIDS,
            "rows": ROWS,
            "proteins": self._proteins,
            "colours": {
                theme: {name: getattr(colour, theme) for name, colour in COLOURS.items()} for theme in ("light", "dark")
            },
            "scales": {"effect": scale_colours("effect")},
        }


def _encode(values: NDArray[np.floating]) -> str:
    """Compress a matrix, (residues, 20), as float32, row by row; NaN stays NaN."""
    return compress(values.astype("<f4").tobytes())


def _residue_name(scan: ProteinScan, row: int) -> str:
    position = int(scan.positions[row])
    return f"{scan.record.sequence[position]}{position + 1}"


def _spearman(comparison: MeasuredComparison) -> str:
    """Write the model's correlation for the scatter plot."""
    metric = next(iter(comparison.spearman.values()))
    return f"Spearman {format_with_interval(metric.value, metric.low, metric.high, 3)}"
