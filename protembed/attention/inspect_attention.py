"""Inspection of attention: maps for each layer and head, statistics of heads, contacts, sites, figures and a page."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.attention.contact_predictors import ContactEvaluation, ContactPredictor
from protembed.attention.estimate import TOKENS_PER_CHUNK, ResourceEstimate
from protembed.attention.maps import AttentionExtractor, MapFiles, MapRequest, ProteinAttention, parse_region
from protembed.attention.page import map_resolution
from protembed.attention.report import AttentionReport
from protembed.attention.sites import SiteTests, site_warnings
from protembed.attention.structure_matching import StructureIndex
from protembed.attention.structures import read_structures, structure_files
from protembed.attention.tables import Evaluation, rows_of, structure_columns, write_columns
from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.common import InputConfig, parse_numbers
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.data.alphabet import decode
from protembed.data.batching import Batch
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.device import WorkerPool, choose_device, peak_memory, worker_pool
from protembed.errors import NoStructureMatchError
from protembed.inference.embedding import check_finite
from protembed.inference.engine import Engine, InferenceJob, whole_proteins
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import Paths, as_paths, check_inputs, default_path, sha256_of_inputs, unchanged_inputs
from protembed.io.result import Result
from protembed.io.writing import atomic_directory, output_errors, seekable_inputs, write_table
from protembed.model.card import pretrained_card
from protembed.model.catalog import locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, write_checkpoint_files


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """The input of an inspection, with its longest protein, and its estimated peak memory and size of the results."""

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


@dataclass(frozen=True, kw_only=True)
class AttentionSummary:
    """The results of an inspection.

    Attributes:
        num_maps: Number of proteins whose maps are saved.
        num_structures: Number of proteins that match a structure.
        num_refused: Number of records that were skipped on request.
        has_contacts: Whether contacts are predicted, by the model's contact head or by one fitted to the structures.
        precisions: Rows of `contacts.tsv` by column; empty without structures.
        num_following: Number of heads that attend significantly to each label of the sites (q ≤ 0.05).
        plan: Input and estimated resources; None if nothing was computed.
        was_done: Whether the same command had made the results before.
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
    plan: AttentionPlan | None
    was_done: bool = False


def inspect_attention(
    fasta: Paths, options: AttentionOptions | None = None, callbacks: Callbacks | None = None
) -> AttentionSummary:
    """Save attention maps for each layer and head, summarise each head over all proteins, and draw the maps.

    If the same command has made the directory before, nothing is computed.

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
        OutputExistsError: There is another result in the output directory.
        InsufficientResourcesError: The memory or the disk is too small.
        ProtembedError: The input, the model or the output is unsuitable, as described in `protembed.errors`.
    """
    options, callbacks, files = options or AttentionOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    config, model, device = options.attention, locate_model(options.model.model), choose_device(options.compute)
    sites = [] if config.sites is None else [config.sites]
    inputs, output = [*files, *config.structures, *sites], config.output or default_path(files[0], ".attention")
    read = [*inputs, model.directory]
    result = Result(
        output, read, force=config.force, record="meta.json", is_record=lambda content: "summary" in content
    )
    checkpoint = load_checkpoint(model.directory).to(device)
    extractor = _make_extractor(checkpoint, config)
    with unchanged_inputs(), seekable_inputs(inputs) as paths:
        fasta, structures = paths[: len(files)], paths[len(files) : len(files) + len(config.structures)]
        config = replace(config, structures=structures, sites=paths[-1] if sites else None)
        settings = {**as_plain_values(options.reader), **_settings(config, extractor)}
        fingerprint = make_fingerprint(settings, model, fasta)
        with result.claim(fingerprint) as claim:
            if claim.recorded is not None:
                return _load_summary(claim.recorded, claim.output)
            with output_errors(claim.output):
                with worker_pool(options.compute, device) as pool:
                    inspection = _Inspection(checkpoint, config, extractor, claim.create_directory(), pool)
                    summary = inspection.run(fasta, options.reader, claim.output, callbacks)
                claim.publish({**fingerprint, **inspection.record(summary)})
            return summary


def _settings(config: AttentionConfig, extractor: AttentionExtractor) -> dict[str, Any]:
    """Collect the options that shape the result, and the hashes of the files that they name."""
    structures = [file for path in config.structures for file in structure_files(path)]
    return {
        **as_plain_values(config),
        "layers": [layer + 1 for layer in extractor.layers],
        "heads": [head + 1 for head in extractor.heads],
        "structures": sha256_of_inputs(structures) if structures else None,
        "sites": None if config.sites is None else sha256_of_inputs([config.sites]),
    }


class _Inspection:
    """An inspection in four steps: plan, extract, evaluate and write."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: AttentionConfig,
        extractor: AttentionExtractor,
        directory: Path,
        pool: WorkerPool,
    ) -> None:
        self._checkpoint, self._config, self._directory = checkpoint, config, directory
        self._engine = Engine(pool=pool, tokens_per_chunk=TOKENS_PER_CHUNK)
        chains, self._warnings = read_structures(config.structures)
        self._structures = StructureIndex(chains)
        self._sites = SiteTests([], "") if config.sites is None else SiteTests.read(config.sites)
        self._files = MapFiles(directory / "maps", config)
        self._extractor = replace(extractor, files=self._files)
        self._requests: dict[str, MapRequest] = {}  # by sequence, because copies of a protein are computed once
        self._displayed: list[Record] = []
        self._maps: list[tuple[NDArray[np.floating], NDArray[np.float32] | None]] = []  # with contacts, until drawn
        self._rows: list[Sequence[Any]] = []
        self._read = ReadStatistics()
        self._sums, self._num_residues = np.zeros(()), 0  # statistics of the heads, (statistics, layer, head)

    def run(self, fasta: Sequence[Path], reader: InputConfig, output: Path, callbacks: Callbacks) -> AttentionSummary:
        """Take all steps, and summarise the results, which will be in `output`."""
        # The input is read twice, so that an invalid record or a protein that is too long is reported at once.
        plan = self.plan(read_fasta(fasta, on_illegal=reader.on_illegal, statistics=self._read))
        callbacks.on_plan(plan)
        self.extract(read_fasta(fasta, on_illegal=reader.on_illegal), callbacks)
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
            warnings=warnings,
        )

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
        def compute(batch: Batch) -> list[ProteinAttention]:
            crops = np.split(batch.tokens.numpy(), batch.offsets[1:-1].numpy())
            sequences = [decode(tokens[1:-1]) for tokens in crops]
            return extractor.extract(batch, [self._requests.get(sequence, MapRequest()) for sequence in sequences])

        return whole_proteins(compute)

    def _collect(self, record: Record, protein: ProteinAttention) -> None:
        """Collect the results of one protein."""
        check_finite(record.id, protein.sums, "attention")
        self._sums = self._sums + protein.sums
        self._num_residues += protein.num_residues
        if protein.features is not None:
            self._structures.add(record, protein.features)
        if protein.received is not None:
            self._sites.add(record, protein.received)
        file = ""
        if record.row < self._config.save_maps and protein.maps is not None:
            file = f"maps/{self._files.name(record)}"
            self._maps.append((protein.maps, protein.contacts))
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
        return Evaluation(means=self._sums / self._num_residues, contacts=contacts, sites=sites)

    def _predicted_contacts(self, evaluation: Evaluation) -> Iterator[NDArray[np.float32] | None]:
        """Yield the contacts of the displayed proteins; a model without a contact head receives the one fitted here."""
        predictor = None if evaluation.contacts is None else evaluation.contacts.predictor
        if self._extractor.contact_head is not None or predictor is None:
            yield from (contacts for _, contacts in self._maps)
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
        report = AttentionReport(directory, self._config, self._extractor.layers, self._extractor.heads)
        displayed = zip(self._displayed, self._maps, self._predicted_contacts(evaluation), strict=True)
        for record, (maps, _), contacts in displayed:
            report.add(record, maps, contacts, self._structures.contacts(record), self._sites.labelled(record))
        report.write(evaluation)
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
            warnings=[*self._read.warnings(), *plan.warnings, *self._warnings],
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


def _load_summary(recorded: Mapping[str, Any], output: Path) -> AttentionSummary:
    values = recorded["summary"]
    sites = {label: SiteSummary(**site) for label, site in values["sites"].items()}
    return AttentionSummary(**{**values, "output": output, "sites": sites, "plan": None, "was_done": True})


def _make_extractor(checkpoint: Checkpoint, config: AttentionConfig) -> AttentionExtractor:
    shape = checkpoint.encoder.shape
    return AttentionExtractor(
        encoder=checkpoint.encoder,
        layers=_parse_indices("layers", config.layers, shape.num_layers),
        heads=_parse_indices("heads", config.heads, shape.num_heads),
        contact_head=checkpoint.contact_head.cpu() if checkpoint.contact_head.is_fitted else None,
        config=config,
    )


def _parse_indices(option: str, text: str, count: int) -> list[int]:
    """Parse a list of numbers from 1 to ascending indices from 0."""
    return sorted({number - 1 for number in parse_numbers(option, text, range(1, count + 1))})
