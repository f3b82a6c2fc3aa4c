"""An inspection of attention, in four steps: plan, extract, evaluate and write."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor
from protembed.attention.estimate import TOKENS_PER_CHUNK, ResourceEstimate
from protembed.attention.head_statistics import HeadSums
from protembed.attention.maps import AttentionExtractor, MapFiles, MapRequest, ProteinAttention, parse_region
from protembed.attention.page_content import page_facts
from protembed.attention.pictures import map_resolution
from protembed.attention.report import AttentionReport
from protembed.attention.request import InspectionRequest
from protembed.attention.sites import SiteTable, SiteTests, read_sites, site_warnings
from protembed.attention.structure_matching import StructureIndex
from protembed.attention.summary import AttentionPlan, AttentionSummary, SiteSummary
from protembed.attention.tables import Evaluation, rows_of, structure_columns, write_columns
from protembed.callbacks import Callbacks
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.alphabet import decode
from protembed.data.batching import Batch
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.data.structures import read_structures
from protembed.device import WorkerPool, peak_memory, worker_pool
from protembed.errors import InputError, NoStructureMatchError
from protembed.inference.computation import Computation
from protembed.inference.embedding import check_finite
from protembed.inference.engine import Engine, InferenceJob, whole_proteins
from protembed.inference.loading import load_for_inference
from protembed.io.reading import check_inputs
from protembed.io.result import Claim
from protembed.io.writing import atomic_directory, write_table
from protembed.model.card import pretrained_card
from protembed.model.checkpoint import Checkpoint, write_checkpoint_files


class Inspection:
    """An inspection in four steps: plan, extract, evaluate and write."""

    def __init__(
        self,
        request: InspectionRequest,
        checkpoint: Checkpoint,
        extractor: AttentionExtractor,
        directory: Path,
        pool: WorkerPool,
    ) -> None:
        config = request.options.attention
        self._request, self._checkpoint, self._config, self._directory = request, checkpoint, config, directory
        self._engine = Engine(
            pool=pool,
            tokens_per_chunk=TOKENS_PER_CHUNK,
            layers=checkpoint.offloaded,
            tokens_per_round=TOKENS_PER_CHUNK,
        )
        chains, self._warnings = read_structures(config.structures)
        self._structures = StructureIndex(chains)
        no_sites = SiteTable(path="", sites=[])
        self._sites = SiteTests(no_sites if config.sites is None else read_sites(config.sites))
        self._files = MapFiles(directory / "maps", config)
        self._extractor = replace(extractor, files=self._files)
        self._requests: dict[str, MapRequest] = {}  # by sequence, because copies of a protein are computed once
        self._displayed: list[Record] = []
        self._attention: list[ProteinAttention] = []  # of the displayed proteins, until drawn
        self._rows: list[Sequence[Any]] = []
        self._read = ReadStatistics()
        self._sums = HeadSums()

    def run(self, output: Path, callbacks: Callbacks) -> AttentionSummary:
        """Take all steps, and summarise the results, which will be in `output`."""
        fasta, reader = self._request.fasta, self._request.options.reader
        # The input is read twice, so that an invalid record or a protein that is too long is reported at once.
        plan = self.plan(read_fasta(fasta, on_illegal=reader.on_illegal, gaps=reader.gaps, statistics=self._read))
        callbacks.on_plan(plan)
        self.extract(read_fasta(fasta, on_illegal=reader.on_illegal, gaps=reader.gaps), callbacks)
        check_inputs()
        evaluation = self.evaluate()
        self.write(evaluation)
        return self._summary(output, plan, evaluation)

    def plan(self, records: Iterable[Record]) -> AttentionPlan:
        """Decide which results are kept of each protein, and check the sites, the structures and the resources."""
        lengths, longest = array("q"), None
        for record in records:
            lengths.append(len(record.sequence))
            if longest is None or lengths[-1] > len(longest.sequence):
                longest = record
            self._add_request(record)
        assert longest is not None, "read_fasta yields at least one record"
        self._check_length(longest)
        if self._config.structures and not self._structures.matched:
            raise NoStructureMatchError(self._structures.warnings())
        warnings = self._sites.check_matched()
        num_maps = len(self._extractor.layers) * len(self._extractor.heads)
        self._extractor = replace(self._extractor, max_pixels=map_resolution(len(self._displayed), num_maps))
        estimate = ResourceEstimate(
            shape=self._checkpoint.encoder.shape,
            config=self._config,
            num_maps=num_maps,
            predicts_contacts=self._extractor.contact_head is not None or bool(self._config.structures),
            lengths=lengths,
            longest=longest,
            displayed=list({record.sequence: record for record in self._displayed}.values()),
            requests=self._requests,
        )
        estimate.check_memory(self._engine, self._checkpoint.device)
        estimate.check_disk(self._directory)
        return AttentionPlan(
            num_proteins=len(lengths),
            num_residues=sum(lengths),
            longest_id=longest.id,
            longest=len(longest.sequence),
            memory_bytes=peak_memory(torch.device("cpu")) + estimate.memory_bytes(self._engine),
            disk_bytes=estimate.disk_bytes,
            notes=self._sites.notes,
            warnings=warnings,
        )

    def _check_length(self, longest: Record) -> None:
        """Check that the model has positions for the longest protein, whose attention is computed at once."""
        limit, num_residues = self._checkpoint.encoder.shape.max_residues, len(longest.sequence)
        if limit is not None and num_residues > limit:
            found = f"{longest.id!r} has {num_residues:,} residues, and the model has learned positions for {limit:,}"
            raise InputError(longest.path, found, "omit it, or give a part of its sequence")

    def _add_request(self, record: Record) -> None:
        """Decide which results are kept of a protein, beside those that are kept of an earlier copy."""
        earlier = self._requests.get(record.sequence, MapRequest())
        pairs, is_annotated = self._structures.match(record), self._sites.match(record)
        request = replace(earlier, pairs=pairs or earlier.pairs, received=is_annotated or earlier.received)
        if record.row < self._config.save_maps:
            request = replace(request, maps=True, region=parse_region(self._config.region, len(record.sequence)))
            self._files.add(record)
            self._displayed.append(record)
        if request.maps or request.pairs or request.received:
            self._requests[record.sequence] = request

    def extract(self, records: Iterable[Record], callbacks: Callbacks) -> None:
        """Compute the attention of all proteins, write the maps, and hold those that will be drawn."""
        with self._files:
            for record, protein in self._engine.run(self._job(self._extractor), records):
                self._collect(record, protein)
                callbacks.on_progress(protein.num_residues)

    def _job(self, extractor: AttentionExtractor) -> InferenceJob[ProteinAttention]:
        def compute(batch: Batch) -> Computation[list[ProteinAttention]]:
            crops = np.split(batch.tokens.numpy(), batch.offsets[1:-1].numpy())
            sequences = [decode(tokens[1:-1]) for tokens in crops]
            requests = [self._requests.get(sequence, MapRequest()) for sequence in sequences]
            return (yield from extractor.extract(batch, requests))

        return whole_proteins(compute)

    def _collect(self, record: Record, protein: ProteinAttention) -> None:
        """Collect the results of one protein."""
        check_finite(record.id, protein.sums, "attention")
        self._sums.add(protein.sums, protein.offset_sums, record.sequence)
        if protein.features is not None:
            self._structures.add(record, protein.features)
        if protein.received is not None:
            self._sites.add(record, protein.received)
        file = ""
        if record.row < self._config.save_maps:
            file = f"maps/{self._files.name(record)}"
            self._attention.append(replace(protein, features=None, received=None))
        self._rows.append([record.row + 1, record.id, protein.num_residues, file])

    def evaluate(self) -> Evaluation:
        """Compare the heads with structures and sites."""
        num_permutations, seed = self._config.num_permutations, self._config.seed
        contacts = None
        if self._config.structures:
            head = self._extractor.contact_head
            model_head = None if head is None else ContactPredictor.from_contact_head(head)
            contacts = self._structures.evaluate(model_head, num_permutations=num_permutations, seed=seed)
            self._warnings += [*self._structures.warnings(), *contacts.warnings()]
        sites = self._sites.evaluate(num_permutations=num_permutations, seed=seed)
        self._warnings += site_warnings(sites.items())
        return Evaluation(statistics=self._sums.means(), contacts=contacts, sites=sites)

    def _predicted_contacts(self, evaluation: Evaluation) -> Iterator[NDArray[np.float32] | None]:
        """Yield the contacts of the displayed proteins; a model without a contact head receives the one fitted here."""
        predictor = None if evaluation.contacts is None else evaluation.contacts.predictor
        if self._extractor.contact_head is not None or predictor is None:
            yield from (protein.contacts for protein in self._attention)
            return
        # This computes the maps again. Those of 120 heads would take 43 MB for 300 residues, and 1 GB for 1,500.
        extractor = replace(self._extractor, contact_head=predictor.to_contact_head(), layers=[], files=None)
        yield from (protein.contacts for _, protein in self._engine.run(self._job(extractor), self._displayed))

    def write(self, evaluation: Evaluation) -> None:
        """Write the tables, the model with a fitted contact head, the figures and the page."""
        directory = self._directory
        if evaluation.contacts is not None:
            write_columns(directory / "structures.tsv", structure_columns(self._structures.matched.values()))
            write_columns(directory / "contacts.tsv", evaluation.precision_columns())
            self._write_model(evaluation.contacts)
        if self._config.sites is not None:
            write_columns(directory / "sites.tsv", evaluation.site_columns())
        report = AttentionReport(
            directory,
            self._config,
            self._extractor.layers,
            self._extractor.heads,
            draws_contacts=evaluation.contacts is None or evaluation.contacts.found_contacts,
        )
        displayed = zip(self._displayed, self._attention, self._predicted_contacts(evaluation), strict=True)
        for record, protein, contacts in displayed:
            report.add(record, protein, contacts, self._structures.of(record), self._sites.labelled(record))
        report.write(evaluation, page_facts(self._request, self._read, len(self._structures.matched)))
        write_columns(directory / "heads.tsv", evaluation.head_columns())
        write_table(directory / "proteins.tsv", ["row", "id", "residues", "maps"], self._rows)

    def _write_model(self, contacts: ContactEvaluation) -> None:
        if contacts.predictor is None:
            return
        with_head = replace(self._checkpoint, contact_head=contacts.predictor.to_contact_head())
        facts = {"contact head": f"L1 regression over all heads, fitted to {contacts.num_proteins} structures"}
        with atomic_directory(self._directory / "model") as directory:
            write_checkpoint_files(with_head, directory, pretrained_card(with_head, facts))

    def _summary(self, output: Path, plan: AttentionPlan, evaluation: Evaluation) -> AttentionSummary:
        columns, sites = evaluation.precision_columns(), evaluation.sites
        contacts = evaluation.contacts
        return AttentionSummary(
            output=output,
            num_proteins=self._read.num_records,
            num_maps=len(self._displayed),
            num_structures=len(self._structures.matched),
            num_refused=len(self._read.skipped),
            has_contacts=self._extractor.contact_head is not None
            or (contacts is not None and contacts.predictor is not None),
            precisions=[dict(zip([column.name for column in columns], row, strict=True)) for row in rows_of(columns)],
            warnings=[*self._read.warnings(), *plan.warnings, *self._request.warnings(), *self._warnings],
            num_heads=dict(Counter(kind.kind for kind in evaluation.head_kinds)),
            best_contact_head=evaluation.best_contact_head,
            num_following={label: result.num_following for label, result in sites.items()},
            sites={
                label: SiteSummary(
                    num_proteins=result.significance.num_proteins,
                    num_residues=result.num_residues,
                    num_compared=result.significance.num_labelled,
                )
                for label, result in sites.items()
            },
            plan=plan,
        )

    def record(self, summary: AttentionSummary) -> dict[str, Any]:
        """Describe the results for `meta.json`, from which `_load_summary` makes the summary again."""
        values = asdict(summary)
        return {
            "region": self._config.region,
            "num_proteins": self._read.num_records,
            "num_residues": self._read.num_residues,
            "num_structures": summary.num_structures,
            "refused": [
                {"id": record.id, "line": record.line, "reason": record.reason} for record in self._read.skipped
            ],
            "summary": {name: value for name, value in values.items() if name not in ("output", "plan", "was_done")},
        }


def inspect(claim: Claim, request: InspectionRequest, callbacks: Callbacks) -> tuple[AttentionSummary, dict[str, Any]]:
    """Fill the directory of a claim; return what was found, and what the record of the result holds beyond the options.

    Raises:
        ProtembedError: The input, the model or the machine does not allow it.
    """
    compute = request.options.compute
    checkpoint = load_for_inference(request.model, compute, torch.float32, callbacks)
    extractor = _make_extractor(checkpoint, request.options.attention)
    with worker_pool(compute, checkpoint.device) as pool:
        inspection = Inspection(request, checkpoint, extractor, claim.create_directory(), pool)
        summary = inspection.run(claim.output, callbacks)
    return summary, inspection.record(summary)


def _make_extractor(checkpoint: Checkpoint, config: AttentionConfig) -> AttentionExtractor:
    shape = checkpoint.encoder.shape
    return AttentionExtractor(
        encoder=checkpoint.encoder,
        layers=config.layer_indices(shape),
        heads=config.head_indices(shape),
        contact_head=checkpoint.contact_head.cpu() if checkpoint.contact_head.is_fitted else None,
        config=config,
    )
