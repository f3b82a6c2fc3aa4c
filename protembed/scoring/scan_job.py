"""A scan in two passes: compute all proteins, in rows that grow on disk, then write and draw them one by one."""

from collections.abc import Sequence
from functools import partial
from heapq import nlargest
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.common import Region
from protembed.config.score import describe_formula
from protembed.data.alphabet import encode
from protembed.data.fasta import ReadStatistics, Record
from protembed.inference.marginals import LogProbabilities, PositionQuery
from protembed.io.result import Claim
from protembed.io.writing import write_text
from protembed.scoring.baselines import MeasuredComparison
from protembed.scoring.displayed_scan import DisplayedScan
from protembed.scoring.position_files import PositionStore
from protembed.scoring.protein_input import ProteinInput
from protembed.scoring.protein_job import ProteinJob
from protembed.scoring.protein_scan import NUM_SUBSTITUTIONS, ProteinScan, scanned_positions
from protembed.scoring.request import ScoringRequest
from protembed.scoring.scan_figures import draw_scan
from protembed.scoring.scan_input import ScanFiles
from protembed.scoring.scan_measurements import Measurements, compare_with_measurements
from protembed.scoring.scan_page import MAX_PROTEINS, ScanPage
from protembed.scoring.scan_structure import MatchedStructure
from protembed.scoring.scan_writer import ScanWriter
from protembed.scoring.variants import read_wild_types
from protembed.text import pluralize

_NUM_BEST = 10


class _ScanJob:
    """The proteins of a scan, and what becomes of them."""

    def __init__(self, directory: Path, job: ProteinJob, proteins: ProteinInput, files: ScanFiles) -> None:
        self._directory, self._job, self._proteins, self._files = directory, job, proteins, files
        self._request = job.request
        self._structure = None if files.structure is None else self._match_structure(files.structure)
        self._measurements = None if files.measurements is None else self._read_measurements(files.measurements)
        self._page = ScanPage()
        self._num_structures = 0
        self._best: list[tuple[str, str, float]] = []
        self._notes: list[str] = []

    def _match_structure(self, path: Path) -> MatchedStructure:
        return MatchedStructure.match(path, [record.sequence for record in self._proteins.read()])

    def _read_measurements(self, path: Path) -> Measurements:
        reader = self._request.options.reader
        proteins = read_wild_types(self._files.fasta, reader=reader, statistics=ReadStatistics())
        return Measurements(path, proteins, self._request.options.table, reader)

    def write(self, store: PositionStore) -> None:
        """Write and draw each protein, from the rows of a store that is closed."""
        formula = describe_formula(self._request.options.scoring.method)
        has_measurements = self._measurements is not None
        with ScanWriter(self._directory, store.num_rows, formula, has_measurements=has_measurements) as files:
            for record, (_, log_probs) in zip(self._proteins.read(), store.rows.vectors(), strict=True):
                self._add(self._make_scan(record, log_probs), files)

    def _make_scan(self, record: Record, log_probs: LogProbabilities) -> ProteinScan:
        positions, measured = self._job.make_query(record.sequence).positions, None
        if self._measurements is not None:
            measured = self._measurements.of(record.sequence, positions)
        return ProteinScan(record=record, positions=positions, log_probs=log_probs, measured=measured)

    def _add(self, scan: ProteinScan, files: ScanWriter) -> None:
        structure = "" if self._structure is None else self._structure.write(self._directory, scan)
        self._num_structures += bool(structure)
        files.add(scan, structure)
        best = [(scan.record.id, str(mutation), score) for mutation, score in scan.best(_NUM_BEST)]
        self._best = nlargest(_NUM_BEST, [*self._best, *best], key=lambda mutant: mutant[2])
        comparison = None
        if scan.measured is not None and self._measurements is not None:
            comparison = compare_with_measurements(scan, self._measurements.column)
            self._notes += [f"{scan.record.id}: {line}" for line in comparison.lines()]
        if self._page.num_proteins < MAX_PROTEINS:
            self._display(scan, comparison)

    def _display(self, scan: ProteinScan, comparison: MeasuredComparison | None) -> None:
        measurements, sequence = self._measurements, scan.record.sequence
        displayed = DisplayedScan.from_scan(scan, measurements.wild_type(sequence) if measurements else None)
        self._page.add(scan, displayed, comparison)
        draw_scan(self._directory / "figures" / f"protein-{scan.record.row + 1:06d}.png", displayed)

    def write_page(self, num_positions: int, warnings: Sequence[str]) -> None:
        """Write the page of the first proteins."""
        request, files, num_proteins = self._request, self._files, self._proteins.num_proteins
        positions = pluralize(num_positions, "scanned position")
        facts = {
            "Command": files.command,
            "Model": request.model.name,
            "Method": request.options.scoring.method,
            "Input": f"{files.fasta_name}: {pluralize(num_proteins, 'protein')}, {positions}",
        }
        title = f"Single mutants of {files.fasta_name}, scored by {request.model.name}"
        notes = [*(self._measurements.notes() if self._measurements else []), *warnings]
        write_text(self._directory / "report.html", self._page.render(title, facts, num_proteins, notes))

    def facts(self) -> dict[str, Any]:
        """Describe what was found, for the record of the directory and the summary."""
        return {
            "num_displayed": self._page.num_proteins,
            "num_structures": self._num_structures,
            "best": [[name, mutant, float(f"{score:.7g}")] for name, mutant, score in self._best],
            "notes": [*(self._measurements.notes() if self._measurements else []), *self._notes],
        }


def _make_query(region: Region, sequence: str) -> PositionQuery:
    """Query the scanned positions of a protein."""
    residues = encode(sequence)
    return PositionQuery(residues=residues, positions=scanned_positions(residues, region))


def run_scan(
    claim: Claim, request: ScoringRequest, files: ScanFiles, proteins: ProteinInput, callbacks: Callbacks
) -> tuple[dict[str, Any], int]:
    """Fill the directory of a scan, from rows that an interrupted process leaves to the next one.

    Returns:
        Counts, notes and warnings for the record of the directory, and the proteins of earlier runs.

    Raises:
        ProtembedError: The input, the model or the device does not allow it.
    """
    protein_job = ProteinJob.load(request, files.precision, partial(_make_query, request.options.scan.range), callbacks)
    job = _ScanJob(claim.path, protein_job, proteins, files)
    with PositionStore.open(claim, proteins, protein_job.make_query) as store:
        num_resumed = store.num_committed
        statistics = protein_job.run(proteins, store, callbacks)
    facts = protein_job.facts(proteins, statistics)
    facts["warnings"] += request.warnings()
    claim.create_directory()
    job.write(store)
    job.write_page(store.num_rows, facts["warnings"])
    counts = {"num_positions": store.num_rows, "num_mutants": NUM_SUBSTITUTIONS * store.num_rows}
    return {**facts, **counts, **job.facts()}, num_resumed
