"""A scan in two passes: check all proteins and count the work, then compute, write and draw them one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

import numpy as np

from protembed.callbacks import Callbacks
from protembed.config.common import Region
from protembed.config.score import describe_formula
from protembed.data.alphabet import encode
from protembed.data.fasta import ReadStatistics, Record
from protembed.errors import NotFiniteError, SkippableError
from protembed.inference.engine import Engine
from protembed.inference.marginals import LogProbabilities, PositionQuery
from protembed.io.writing import write_text
from protembed.scoring.baselines import MeasuredComparison
from protembed.scoring.displayed_scan import DisplayedScan
from protembed.scoring.protein_input import read_scorable
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _ScanQuery(PositionQuery):
    """The scanned positions of a record."""

    record: Record


class _ScanJob:
    """The proteins of a scan, and what becomes of them."""

    def __init__(self, directory: Path, request: ScoringRequest, files: ScanFiles, job: ProteinJob) -> None:
        self._directory, self._request, self._files, self._job = directory, request, files, job
        region = request.options.scan.region
        self._region = None if region is None else Region.parse(region)
        self._statistics = ReadStatistics()
        self.num_tokens = self._num_positions = self._num_structures = 0
        self._sequences: list[str] = []  # only for a structure
        self._check_all()
        self._structure = None if files.structure is None else MatchedStructure.match(files.structure, self._sequences)
        self._measurements = None if files.measurements is None else self._read_measurements(files.measurements)
        self._page = ScanPage()
        self._best: list[tuple[str, str, float]] = []
        self._notes: list[str] = []

    def _check_all(self) -> None:
        """Read all proteins, so that an invalid one is reported before anything is computed."""
        for query in self._queries(self._statistics):
            self.num_tokens += self._job.computation.num_tokens(query)
            self._num_positions += len(query.positions)
            if self._files.structure is not None:
                self._sequences.append(query.record.sequence)

    def _queries(self, statistics: ReadStatistics) -> Iterator[_ScanQuery]:
        reader = self._request.options.reader
        for record in read_scorable(self._files.fasta, reader, statistics):
            try:
                positions = scanned_positions(record, self._region)
            except SkippableError as error:
                statistics.num_records -= 1  # the next record gets its row
                statistics.skip_or_raise(record.id, error, reader.on_illegal)
            else:
                yield _ScanQuery(residues=encode(record.sequence), positions=positions, record=record)

    def _read_measurements(self, path: Path) -> Measurements:
        reader = self._request.options.reader
        proteins = read_wild_types(self._files.fasta, reader=reader, statistics=ReadStatistics())
        return Measurements(path, proteins, self._request.options.scan.measured_column, reader)

    def run(self, engine: Engine, on_crop: Callable[[int], None]) -> None:
        """Compute all proteins, and write and draw each."""
        formula = describe_formula(self._request.options.scoring.method)
        has_measurements = self._measurements is not None
        with ScanWriter(self._directory, self._num_positions, formula, has_measurements=has_measurements) as files:
            for query, log_probs in engine.run(self._job.computation, self._queries(ReadStatistics()), on_crop):
                self._add(self._make_scan(query, log_probs), files)

    def _make_scan(self, query: _ScanQuery, log_probs: LogProbabilities) -> ProteinScan:
        if not np.isfinite(log_probs).all():
            raise NotFiniteError(query.record.id, self._job.precision, "float32", what="score")
        measured = None
        if self._measurements is not None:
            measured = self._measurements.of(query.record.sequence, query.positions)
        return ProteinScan(record=query.record, positions=query.positions, log_probs=log_probs, measured=measured)

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

    def write_page(self) -> None:
        """Write the page of the first proteins."""
        request, files, num_proteins = self._request, self._files, self._statistics.num_records
        positions = pluralize(self._num_positions, "scanned position")
        facts = {
            "Command": files.command,
            "Model": request.model.name,
            "Method": request.options.scoring.method,
            "Input": f"{files.fasta_name}: {pluralize(num_proteins, 'protein')}, {positions}",
        }
        title = f"Single mutants of {files.fasta_name}, scored by {request.model.name}"
        notes = [*(self._measurements.notes() if self._measurements else []), *self.warnings]
        write_text(self._directory / "report.html", self._page.render(title, facts, num_proteins, notes))

    @property
    def warnings(self) -> list[str]:
        """What the user should know about the input and the model."""
        return self._job.warnings(self._statistics)

    def facts(self) -> dict[str, Any]:
        """Describe what was scanned, for the record of the directory and the summary."""
        statistics, measurements = self._statistics, self._measurements
        return {
            "num_proteins": statistics.num_records,
            "num_positions": self._num_positions,
            "num_mutants": NUM_SUBSTITUTIONS * self._num_positions,
            "num_displayed": self._page.num_proteins,
            "num_structures": self._num_structures,
            "num_refused": len(statistics.skipped),
            **statistics.left_out(),
            "best": [[name, mutant, float(f"{score:.7g}")] for name, mutant, score in self._best],
            "notes": [*(measurements.notes() if measurements else []), *self._notes],
            "warnings": self.warnings,
        }


def run_scan(
    directory: Path, request: ScoringRequest, files: ScanFiles, precision: str, callbacks: Callbacks
) -> dict[str, Any]:
    """Fill the directory of a scan; return counts, notes and warnings for its record.

    Raises:
        ProtembedError: The input, the model or the device does not allow it.
    """
    protein_job = ProteinJob.load(request, precision, PositionQuery.amino_acids, callbacks)
    job = _ScanJob(directory, request, files, protein_job)
    callbacks.on_start(job.num_tokens)
    with protein_job.engine() as engine:
        job.run(engine, callbacks.on_computed)
    job.write_page()
    return job.facts()
