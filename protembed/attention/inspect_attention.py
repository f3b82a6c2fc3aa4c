"""Attention: from FASTA and a model to maps per layer and head, statistics of heads, contacts, and figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from protembed.config.common import DeviceConfig, InputConfig, ModelConfig
from protembed.config.inspect_attention import AttentionConfig
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
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, write_checkpoint_files

_STATISTICS = "heads.tsv"


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """What there is to look at, and what it will take.

    Attributes:
        num_proteins: proteins.
        num_residues: of all proteins.
        longest_id: of the longest protein.
        longest: its residues.
        memory_bytes: the most that will be held at once, about.
        disk_bytes: of the results, about.
        warnings: What the user should know before anything is computed.
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
    """On how much the result of a label rests.

    Attributes:
        num_proteins: Proteins in which anything could be compared.
        num_residues: Labelled residues.
        num_compared: Labelled residues with an unlabelled residue of the same amino acid to compare with.
    """

    num_proteins: int
    num_residues: int
    num_compared: int

    @classmethod
    def of(cls, result: SiteResult) -> "SiteSummary":
        """Summarise a label's tests."""
        found = result.significance
        return cls(num_proteins=found.num_proteins, num_residues=result.num_residues, num_compared=found.num_marks)


@dataclass(frozen=True, kw_only=True)
class AttentionSummary:
    """What was looked at.

    Attributes:
        output: the directory of the results.
        num_proteins: proteins that the statistics cover.
        num_maps: proteins whose maps were kept.
        num_structures: proteins that a structure shows.
        num_refused: records left out on request.
        has_contacts: whether contacts are among the results: the model's own head was fitted, or one was fitted here.
        precisions: of each way to predict contacts, range and number of pairs, by the columns of `contacts.tsv`; empty
            without structures.
        warnings: what the user should know about the input, and about what came of it.
        num_following: of each label of the sites, the heads that attend to them with a q of at most 0.05.
        sites: On how much the result of each label rests.
        plan: what it was reckoned to take.
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
    fasta: Sequence[PathLike],
    model: ModelConfig,
    attention: AttentionConfig,
    *,
    reader: InputConfig | None = None,
    compute: DeviceConfig | None = None,
    on_plan: Callable[[AttentionPlan], None] = lambda plan: None,
    on_protein: Callable[[int], None] = lambda num_residues: None,
) -> AttentionSummary:
    """Keep attention maps per layer and head, summarise each head over all proteins, and draw the maps.

    The directory holds `heads.tsv`, `proteins.tsv`, and for the first proteins `maps/protein-000001.npz` with
    `attention` (layer, head, residues, residues), `layers`, `heads`, and `contacts` and `rollout` where there are any,
    and `figures/protein-000001.png`. With structures, `heads.tsv` says how well each head follows their contacts,
    `contacts.tsv` how precisely contacts are predicted, `structures.tsv` which chain shows which protein, and `model/`
    is the model with a contact head fitted to them. Predicted contacts are in `contacts/`, also as CASP's RR files;
    `report.html` shows it all on one page.

    Args:
        fasta: the files; `-` is stdin.
        model: which model.
        attention: where to, which layers, heads and proteins, and what to compare with.
        reader: how to read; the defaults if None.
        compute: where to compute; the defaults if None.
        on_plan: told what it will take, before anything is computed.
        on_protein: told the residues of each protein that is finished.

    Raises:
        ChangedInputError: a file changed while it was read.
        OutputExistsError: the directory stands there already.
        NotEnoughRoomError: this machine has not the memory, or the disk, for it.
        ProtembedError: the input, the model or the output does not allow it; see `protembed.errors`.
    """
    reader, compute, statistics = reader or InputConfig(), compute or DeviceConfig(), ReadStatistics()
    files = as_paths("fasta", fasta)
    output = follow_link(attention.output or default_path(files[0], ".attention"))
    check_is_path(output)
    check_absent(output, force=attention.force)
    found, device = find_model(model.model), choose_device(compute)
    check_not_an_input(output, [*files, found, *attention.structures, *filter(None, [attention.sites])])
    checkpoint = load_checkpoint(found).to(device)
    with (
        unchanged_inputs(),
        seekable_inputs(files) as paths,
        result_lock(output),
        worker_pool(compute, device) as pool,
    ):
        engine = Engine(pool=pool, tokens_per_chunk=TOKENS_PER_CHUNK)
        with atomic_directory(output, marker=_STATISTICS) as directory:
            inspection = _Inspection(checkpoint, attention, directory)
            # Read twice: a wrong record, or a protein that is too large, should not be found after hours.
            plan = inspection.plan(read_fasta(paths, on_illegal=reader.on_illegal, statistics=statistics), engine)
            on_plan(plan)
            inspection.read_all(read_fasta(paths, on_illegal=reader.on_illegal), engine, on_protein)
            check_inputs()
            inspection.finish(engine, statistics)
    return inspection.summary(output, statistics, plan)


class _Inspection:
    """What is looked at in each protein, and what is written of all.

    Args:
        checkpoint: the model.
        config: which layers, heads and proteins, and what they are compared with.
        directory: of the results.
    """

    def __init__(self, checkpoint: Checkpoint, config: AttentionConfig, directory: Path) -> None:
        self._checkpoint, self._config, self._directory = checkpoint, config, directory
        chains, self._warnings = read_structures(config.structures)
        self._structures = StructureIndex(chains, config.save_maps)
        self._sites = SiteTests([] if config.sites is None else read_sites(config.sites), str(config.sites))
        self._reader = _reader(checkpoint, config)
        self._maps = MapFiles(directory / "maps", self._reader, config)
        self._statistics = HeadStatistics()
        self._wanted: dict[int, MapRequest] = {}
        self._rows: list[Sequence[Any]] = []
        self._kept: list[Record] = []
        self._evidence: ContactEvaluation | None = None
        self._of_sites: dict[str, SiteResult] = {}

    def plan(self, records: Iterable[Record], engine: Engine) -> AttentionPlan:
        """Decide what is wanted of each protein, and reckon what that will take.

        Raises:
            NotEnoughRoomError: this machine has not enough.
            TableError: A site lies beyond its protein, or all sites name proteins that are not there.
            TooFewStructuresError: there are structures, and none shows a protein.
        """
        config, reader = self._config, self._reader
        will_predict = reader.contact_head is not None or bool(config.structures)
        num_maps = len(reader.layers) * len(reader.heads)
        footprint = ResourceEstimate(self._checkpoint.encoder.shape, config, num_maps, will_predict)
        for row, record in enumerate(records):
            self._want(row, record, footprint)
        if config.structures and not self._structures.shown:
            raise NoStructureMatchError(self._structures.warnings())
        warnings = self._sites.check_found()
        memory = footprint.memory_bytes(engine.pool.num_workers, engine.micro_batch_tokens)
        footprint.check_memory(engine, self._checkpoint.device)
        footprint.check_disk(self._directory)
        return AttentionPlan(
            num_proteins=footprint.num_proteins,
            num_residues=footprint.num_residues,
            longest_id=footprint.longest.id,
            longest=footprint.longest.num_residues,
            memory_bytes=peak_memory(torch.device("cpu")) + memory,
            disk_bytes=footprint.disk_bytes,
            warnings=warnings,
        )

    def read_all(self, records: Iterable[Record], engine: Engine, on_protein: Callable[[int], None]) -> None:
        """Read the attention of all proteins, and write the maps that are kept."""
        with self._maps:
            for record, protein in engine.run(InferenceJob(compute=self._read), records):
                self._take(record, protein)
                on_protein(protein.num_residues)

    def finish(self, engine: Engine, statistics: ReadStatistics) -> None:
        """Weigh heads against structures and sites, predict contacts, and write tables, figures and the page."""
        directory, means = self._directory, self._statistics.means()
        if self._config.structures:
            self._evaluate_structures()
        if self._config.sites is not None:
            self._evaluate_sites()
        truths = self._structures.contacts
        gallery = AttentionReport(
            reader=self._reader, config=self._config, directory=directory, truths=truths, sites=self._sites.labelled
        )
        gallery.show(self._kept, engine, means, self._evidence, self._of_sites)
        write_metrics_table(directory / _STATISTICS, head_columns(self._evidence), head_rows(means, self._evidence))
        write_table(directory / "proteins.tsv", ["row", "id", "residues", "maps"], self._rows)
        write_json(directory / "meta.json", self._facts(statistics))

    def _facts(self, statistics: ReadStatistics) -> dict[str, Any]:
        """Say how the results were made."""
        return {
            "protembed_version": __version__,
            "model_sha256": self._checkpoint.sha256(),
            "layers": [layer + 1 for layer in self._reader.layers],
            "heads": [head + 1 for head in self._reader.heads],
            "region": self._config.region,
            "num_permutations": self._config.num_permutations,
            "seed": self._config.seed,
            "num_proteins": statistics.num_records,
            "num_residues": statistics.num_residues,
            "num_structures": len(self._structures.shown),
            "refused": [
                {"id": record.id, "line": record.line, "reason": record.reason} for record in statistics.skipped
            ],
        }

    def summary(self, output: Path, statistics: ReadStatistics, plan: AttentionPlan) -> AttentionSummary:
        """Say what has come of it."""
        rows = [] if self._evidence is None else precision_rows(self._evidence)
        return AttentionSummary(
            output=output,
            num_proteins=statistics.num_records,
            num_maps=len(self._kept),
            num_structures=len(self._structures.shown),
            num_refused=len(statistics.skipped),
            has_contacts=self._reader.contact_head is not None,
            precisions=[dict(zip(PRECISION_COLUMNS, row, strict=True)) for row in rows],
            warnings=[*statistics.warnings(), *plan.warnings, *self._warnings],
            num_following={label: result.num_following for label, result in self._of_sites.items()},
            sites={label: SiteSummary.of(result) for label, result in self._of_sites.items()},
            plan=plan,
        )

    def _want(self, row: int, record: Record, footprint: ResourceEstimate) -> None:
        """Decide what is wanted of a protein beside its statistics."""
        is_kept, num_residues = row < self._config.save_maps, len(record.sequence)
        file = self._maps.file(row, record) if is_kept else None
        region = parse_region(self._config.region if is_kept else None, num_residues)
        pairs, is_annotated = self._structures.find(row, record), self._sites.find(record)
        if file or pairs or is_annotated:
            self._wanted[row] = MapRequest(file=file, region=region, pairs=pairs, received=is_annotated)
        footprint.add(
            ProteinLength(id=record.id, num_residues=num_residues),
            region=region.stop - region.start if file else None,
            num_pairs=len(pairs.first) if pairs else 0,
            is_annotated=is_annotated,
        )

    def _request_of(self, row: int) -> MapRequest:
        return self._wanted.get(row, MapRequest())

    def _read(self, batch: Batch) -> list[ProteinAttention]:
        return self._reader.read(batch, [self._request_of(row) for row in batch.rows.tolist()])

    def _take(self, record: Record, protein: ProteinAttention) -> None:
        """Take in what was computed of a protein."""
        row, name = len(self._rows), ""
        wanted = self._request_of(row)
        check_finite(record.id, protein.sums, "attention")
        self._statistics.add(protein)
        if row < self._config.save_maps:
            name = f"maps/{self._maps.finish(record, protein)}"
            self._kept.append(record)
        self._rows.append([row + 1, record.id, protein.num_residues, name])
        if wanted.pairs is not None and protein.features is not None:
            self._structures.take(wanted.pairs, protein.features)
        if wanted.received and protein.received is not None:
            self._sites.take(record, protein.received)

    def _evaluate_structures(self) -> None:
        """Compare heads with contacts; without a contact head of its own the model is given the one fitted here."""
        config, head = self._config, self._reader.contact_head
        own = None if head is None else ContactPredictor.of(head)
        evidence = self._structures.weigh(own, num_permutations=config.num_permutations, seed=config.seed)
        self._evidence = evidence
        self._warnings += self._structures.warnings()
        write_metrics_table(
            self._directory / "structures.tsv", STRUCTURE_COLUMNS, map(structure_row, self._structures.shown)
        )
        write_metrics_table(self._directory / "contacts.tsv", PRECISION_COLUMNS, precision_rows(evidence))
        if evidence.fitted is None:
            self._warnings.append(
                "only one protein has a structure: no contact head is fitted, because that needs two, and which heads "
                "follow contacts rests on one protein"
            )
            return
        if evidence.predictor is None:
            self._warnings.append("the regression over all heads selected no heads; no contact head is saved")
            return
        if head is None:
            self._reader = replace(self._reader, contact_head=evidence.predictor.head())
        with_head = replace(self._checkpoint, contact_head=evidence.predictor.head())
        facts = {"contact head": f"L1 regression over all heads, fitted to {evidence.num_proteins} structures"}
        with atomic_directory(self._directory / "model") as directory:
            write_checkpoint_files(with_head, directory, pretrained_card(with_head, facts))

    def _evaluate_sites(self) -> None:
        config, num_heads = self._config, self._checkpoint.encoder.shape.num_heads
        self._of_sites = self._sites.weigh(num_permutations=config.num_permutations, seed=config.seed)
        self._warnings += site_warnings(self._of_sites.items())
        write_metrics_table(self._directory / "sites.tsv", SITE_COLUMNS, site_rows(self._of_sites, num_heads))


def _reader(checkpoint: Checkpoint, attention: AttentionConfig) -> AttentionExtractor:
    shape = checkpoint.encoder.shape
    return AttentionExtractor(
        encoder=checkpoint.encoder,
        layers=parse_numbers("--layers", attention.layers, shape.num_layers),
        heads=parse_numbers("--heads", attention.heads, shape.num_heads),
        contact_head=checkpoint.contact_head.cpu() if checkpoint.contact_head.is_fitted else None,
        computes_rollout=attention.rollout,
    )
