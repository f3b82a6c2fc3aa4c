"""Inspection of attention: maps for each layer and head, statistics of heads, contacts, sites, figures and a page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from protembed._version import __version__
from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor
from protembed.attention.estimate import TOKENS_PER_CHUNK, ProteinLength, ResourceEstimate
from protembed.attention.maps import (
    AttentionExtractor,
    HeadStatistics,
    MapFiles,
    MapRequest,
    ProteinAttention,
    parse_numbers,
    parse_region,
)
from protembed.attention.report import AttentionReport
from protembed.attention.sites import SiteResult, SiteTests, read_sites, site_warnings
from protembed.attention.structure_matching import StructureIndex
from protembed.attention.structures import read_structures
from protembed.attention.tables import (
    PRECISION_COLUMNS,
    SITE_COLUMNS,
    STRUCTURE_COLUMNS,
    head_columns,
    head_rows,
    precision_rows,
    site_rows,
    structure_row,
    write_metrics_table,
)
from protembed.callbacks import Callbacks
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.data.batching import Batch
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.device import choose_device, peak_memory, worker_pool
from protembed.errors import NoStructureMatchError
from protembed.inference.embedding import check_finite
from protembed.inference.engine import Engine, InferenceJob
from protembed.io.reading import PathLike, as_paths, check_inputs, default_path, follow_link, unchanged_inputs
from protembed.io.result import check_absent, check_is_path, check_not_an_input, result_lock
from protembed.io.writing import atomic_directory, seekable_inputs, write_json, write_table
from protembed.model.card import pretrained_card
from protembed.model.catalog import locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, write_checkpoint_files

_STATISTICS = "heads.tsv"


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """The input of an inspection, and its estimated resources.

    Attributes:
        num_residues: Number of residues of all proteins.
        longest_id: Identifier of the longest protein.
        longest: Length of the longest protein, residues.
        memory_bytes: Estimated peak memory.
        disk_bytes: Estimated size of the results.
        warnings: Warnings to show before the computation.
    """

    num_proteins: int
    num_residues: int
    longest_id: str
    longest: int
    memory_bytes: int
    disk_bytes: int
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class SiteSummary:
    """The amount of data behind the tests of a label.

    Attributes:
        num_proteins: Number of proteins that allow a comparison.
        num_residues: Number of labelled residues.
        num_compared: Number of labelled residues that can be compared with an unlabelled residue of the same amino
            acid.
    """

    num_proteins: int
    num_residues: int
    num_compared: int

    @classmethod
    def from_result(cls, result: SiteResult) -> "SiteSummary":
        """Summarise a label's tests."""
        test = result.significance
        return cls(num_proteins=test.num_proteins, num_residues=result.num_residues, num_compared=test.num_labelled)


@dataclass(frozen=True, kw_only=True)
class AttentionSummary:
    """The results of an inspection.

    Attributes:
        output: Directory of the results.
        num_maps: Number of proteins whose maps are saved.
        num_structures: Number of proteins that match a structure.
        num_refused: Number of records that were skipped on request.
        has_contacts: Whether contacts are predicted, by the model's contact head or by one fitted to the structures.
        precisions: Rows of `contacts.tsv` by column; empty without structures.
        warnings: Warnings about the input and the results.
        num_following: Number of heads that attend significantly to each label of the sites (q ≤ 0.05).
        sites: Amount of data behind the tests of each label.
        plan: Input and estimated resources.
    """

    output: Path
    num_proteins: int
    num_maps: int
    num_structures: int
    num_refused: int
    has_contacts: bool
    precisions: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    num_following: Mapping[str, int]
    sites: Mapping[str, SiteSummary]
    plan: AttentionPlan


def inspect_attention(
    fasta: Sequence[PathLike], options: AttentionOptions | None = None, callbacks: Callbacks | None = None
) -> AttentionSummary:
    """Save attention maps for each layer and head, summarise each head over all proteins, and draw the maps.

    The output directory holds `heads.tsv`, `proteins.tsv`, and for the first proteins `maps/protein-000001.npz` with
    `attention` (layer, head, residues, residues), `layers`, `heads`, and `contacts` and `rollout` where available, and
    `figures/protein-000001.png`. With structures, `heads.tsv` also reports how well each head follows their contacts,
    `contacts.tsv` the precision of predicted contacts, `structures.tsv` the chain that matches each protein, and
    `model/` is the model with a contact head fitted to the structures. Predicted contacts are in `contacts/`, also as
    CASP's RR files. `report.html` shows all results on one page.

    Args:
        fasta: FASTA files; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan, and the residues of each finished protein.

    Raises:
        ChangedInputError: A file changed while it was read.
        OutputExistsError: The output directory already exists.
        InsufficientResourcesError: The memory or the disk is too small.
        ProtembedError: The input, the model or the output is unsuitable, as described in `protembed.errors`.
    """
    options, callbacks, statistics = options or AttentionOptions(), callbacks or Callbacks(), ReadStatistics()
    attention, on_illegal = options.attention, options.reader.on_illegal
    files = as_paths("fasta", fasta)
    output = follow_link(attention.output or default_path(files[0], ".attention"))
    check_is_path(output)
    check_absent(output, force=attention.force)
    model_path, device = locate_model(options.model.model).directory, choose_device(options.compute)
    check_not_an_input(output, [*files, model_path, *attention.structures, *filter(None, [attention.sites])])
    checkpoint = load_checkpoint(model_path).to(device)
    with (
        unchanged_inputs(),
        seekable_inputs(files) as paths,
        result_lock(output),
        worker_pool(options.compute, device) as pool,
    ):
        engine = Engine(pool=pool, tokens_per_chunk=TOKENS_PER_CHUNK)
        with atomic_directory(output, marker=_STATISTICS) as directory:
            inspection = _Inspection(checkpoint, attention, directory)
            # The input is read twice, so that an invalid record or a protein that is too long is reported at once.
            plan = inspection.plan(read_fasta(paths, on_illegal=on_illegal, statistics=statistics), engine)
            callbacks.on_plan(plan)
            inspection.extract_all(read_fasta(paths, on_illegal=on_illegal), engine, callbacks)
            check_inputs()
            inspection.finish(engine, statistics)
    return inspection.summary(output, statistics, plan)


class _Inspection:
    """Collects the attention of all proteins, and writes the results.

    Args:
        checkpoint: Model to inspect.
        config: Options of the saved layers, heads and proteins, and of structures and sites.
        directory: Directory of the results.
    """

    def __init__(self, checkpoint: Checkpoint, config: AttentionConfig, directory: Path) -> None:
        self._checkpoint, self._config, self._directory = checkpoint, config, directory
        chains, self._warnings = read_structures(config.structures)
        self._structures = StructureIndex(chains, config.save_maps)
        self._sites = SiteTests([] if config.sites is None else read_sites(config.sites), str(config.sites))
        self._extractor = _make_extractor(checkpoint, config)
        self._maps = MapFiles(directory / "maps", self._extractor, config)
        self._statistics = HeadStatistics()
        self._requests: dict[int, MapRequest] = {}
        self._rows: list[Sequence[Any]] = []
        self._displayed: list[Record] = []
        self._evaluation: ContactEvaluation | None = None
        self._site_results: dict[str, SiteResult] = {}

    def plan(self, records: Iterable[Record], engine: Engine) -> AttentionPlan:
        """Decide which results are kept of each protein, and estimate the resources.

        Raises:
            InsufficientResourcesError: The memory or the disk is too small.
            TableError: A site lies beyond its protein, or no site names a protein of the input.
            NoStructureMatchError: There are structures, but none matches a protein.
        """
        config, extractor = self._config, self._extractor
        predicts_contacts = extractor.contact_head is not None or bool(config.structures)
        num_maps = len(extractor.layers) * len(extractor.heads)
        estimate = ResourceEstimate(self._checkpoint.encoder.shape, config, num_maps, predicts_contacts)
        for row, record in enumerate(records):
            self._add_request(row, record, estimate)
        if config.structures and not self._structures.matched:
            raise NoStructureMatchError(self._structures.warnings())
        warnings = self._sites.check_matched()
        memory = estimate.memory_bytes(engine.pool.num_workers, engine.micro_batch_tokens)
        estimate.check_memory(engine, self._checkpoint.device)
        estimate.check_disk(self._directory)
        return AttentionPlan(
            num_proteins=estimate.num_proteins,
            num_residues=estimate.num_residues,
            longest_id=estimate.longest.id,
            longest=estimate.longest.num_residues,
            memory_bytes=peak_memory(torch.device("cpu")) + memory,
            disk_bytes=estimate.disk_bytes,
            warnings=warnings,
        )

    def extract_all(self, records: Iterable[Record], engine: Engine, callbacks: Callbacks) -> None:
        """Compute the attention of all proteins, and write the requested maps."""
        with self._maps:
            for record, protein in engine.run(InferenceJob(compute=self._extract), records):
                self._collect(record, protein)
                callbacks.on_progress(protein.num_residues)

    def finish(self, engine: Engine, statistics: ReadStatistics) -> None:
        """Evaluate heads on structures and sites, predict contacts, and write tables, figures and the page."""
        directory, means = self._directory, self._statistics.means()
        if self._config.structures:
            self._evaluate_structures()
        if self._config.sites is not None:
            self._evaluate_sites()
        attention_report = AttentionReport(
            extractor=self._extractor,
            config=self._config,
            directory=directory,
            contact_maps=self._structures.contacts,
            sites=self._sites.labelled,
        )
        attention_report.write(self._displayed, engine, means, self._evaluation, self._site_results)
        write_metrics_table(directory / _STATISTICS, head_columns(self._evaluation), head_rows(means, self._evaluation))
        write_table(directory / "proteins.tsv", ["row", "id", "residues", "maps"], self._rows)
        write_json(directory / "meta.json", self._metadata(statistics))

    def _metadata(self, statistics: ReadStatistics) -> dict[str, Any]:
        """Describe how the results were computed."""
        return {
            "protembed_version": __version__,
            "model_sha256": self._checkpoint.sha256(),
            "layers": [layer + 1 for layer in self._extractor.layers],
            "heads": [head + 1 for head in self._extractor.heads],
            "region": self._config.region,
            "num_permutations": self._config.num_permutations,
            "seed": self._config.seed,
            "num_proteins": statistics.num_records,
            "num_residues": statistics.num_residues,
            "num_structures": len(self._structures.matched),
            "refused": [
                {"id": record.id, "line": record.line, "reason": record.reason} for record in statistics.skipped
            ],
        }

    def summary(self, output: Path, statistics: ReadStatistics, plan: AttentionPlan) -> AttentionSummary:
        """Summarise the results."""
        rows = [] if self._evaluation is None else precision_rows(self._evaluation)
        return AttentionSummary(
            output=output,
            num_proteins=statistics.num_records,
            num_maps=len(self._displayed),
            num_structures=len(self._structures.matched),
            num_refused=len(statistics.skipped),
            has_contacts=self._extractor.contact_head is not None,
            precisions=[dict(zip(PRECISION_COLUMNS, row, strict=True)) for row in rows],
            warnings=[*statistics.warnings(), *plan.warnings, *self._warnings],
            num_following={label: result.num_following for label, result in self._site_results.items()},
            sites={label: SiteSummary.from_result(result) for label, result in self._site_results.items()},
            plan=plan,
        )

    def _add_request(self, row: int, record: Record, estimate: ResourceEstimate) -> None:
        """Decide which optional results are kept of a protein."""
        is_displayed, num_residues = row < self._config.save_maps, len(record.sequence)
        file = self._maps.file(row, record) if is_displayed else None
        region = parse_region(self._config.region if is_displayed else None, num_residues)
        pairs, is_annotated = self._structures.match(row, record), self._sites.match(record)
        if file or pairs or is_annotated:
            self._requests[row] = MapRequest(file=file, region=region, pairs=pairs, received=is_annotated)
        estimate.add(
            ProteinLength(id=record.id, num_residues=num_residues),
            region=region.stop - region.start if file else None,
            num_pairs=len(pairs.first) if pairs else 0,
            is_annotated=is_annotated,
        )

    def _request_for(self, row: int) -> MapRequest:
        return self._requests.get(row, MapRequest())

    def _extract(self, batch: Batch) -> list[ProteinAttention]:
        return self._extractor.extract(batch, [self._request_for(row) for row in batch.rows.tolist()])

    def _collect(self, record: Record, protein: ProteinAttention) -> None:
        """Collect the results of one protein."""
        row, name = len(self._rows), ""
        request = self._request_for(row)
        check_finite(record.id, protein.sums, "attention")
        self._statistics.add(protein)
        if row < self._config.save_maps:
            name = f"maps/{self._maps.finish(record, protein)}"
            self._displayed.append(record)
        self._rows.append([row + 1, record.id, protein.num_residues, name])
        if request.pairs is not None and protein.features is not None:
            self._structures.add(request.pairs, protein.features)
        if request.received and protein.received is not None:
            self._sites.add(record, protein.received)

    def _evaluate_structures(self) -> None:
        """Compare heads with contacts; a model without a contact head receives the one fitted here."""
        config, head = self._config, self._extractor.contact_head
        model_head = None if head is None else ContactPredictor.from_contact_head(head)
        evaluation = self._structures.evaluate(model_head, num_permutations=config.num_permutations, seed=config.seed)
        self._evaluation = evaluation
        self._warnings += self._structures.warnings()
        write_metrics_table(
            self._directory / "structures.tsv", STRUCTURE_COLUMNS, map(structure_row, self._structures.matched)
        )
        write_metrics_table(self._directory / "contacts.tsv", PRECISION_COLUMNS, precision_rows(evaluation))
        if evaluation.fitted is None:
            self._warnings.append(
                "only one protein has a structure; fitting a contact head needs two, and the tests of heads rest on "
                "this protein alone"
            )
            return
        if evaluation.predictor is None:
            self._warnings.append("the regression over all heads selected no heads; no contact head is saved")
            return
        if head is None:
            self._extractor = replace(self._extractor, contact_head=evaluation.predictor.to_contact_head())
        with_head = replace(self._checkpoint, contact_head=evaluation.predictor.to_contact_head())
        facts = {"contact head": f"L1 regression over all heads, fitted to {evaluation.num_proteins} structures"}
        with atomic_directory(self._directory / "model") as directory:
            write_checkpoint_files(with_head, directory, pretrained_card(with_head, facts))

    def _evaluate_sites(self) -> None:
        config, num_heads = self._config, self._checkpoint.encoder.shape.num_heads
        self._site_results = self._sites.evaluate(num_permutations=config.num_permutations, seed=config.seed)
        self._warnings += site_warnings(self._site_results.items())
        write_metrics_table(self._directory / "sites.tsv", SITE_COLUMNS, site_rows(self._site_results, num_heads))


def _make_extractor(checkpoint: Checkpoint, attention: AttentionConfig) -> AttentionExtractor:
    shape = checkpoint.encoder.shape
    return AttentionExtractor(
        encoder=checkpoint.encoder,
        layers=parse_numbers("layers", attention.layers, shape.num_layers),
        heads=parse_numbers("heads", attention.heads, shape.num_heads),
        contact_head=checkpoint.contact_head.cpu() if checkpoint.contact_head.is_fitted else None,
        computes_rollout=attention.rollout,
    )
