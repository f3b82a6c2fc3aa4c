"""Attention: from FASTA and a model to maps per layer and head, statistics of heads, contacts, and figures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import protembed
from protembed.analysis.attention import (
    AttentionReader,
    HeadStatistics,
    ProteinAttention,
    Wanted,
    parse_numbers,
    parse_region,
)
from protembed.analysis.contact_heads import Combination
from protembed.analysis.contacts import Pairs, pairs_of
from protembed.analysis.evidence import ContactEvidence, weigh_contacts
from protembed.analysis.site_marks import SiteMarks
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig
from protembed.data.annotations import Site, read_sites
from protembed.data.arrays import LayeredMaps
from protembed.data.batching import Batch
from protembed.data.fasta import ReadReport, Record, read_fasta
from protembed.data.structures import Chain, contact_map, distances, match_chain, read_chains
from protembed.device import choose_device, worker_pool
from protembed.errors import ConfigError, OutputExistsError
from protembed.files import atomic_directory, write_json
from protembed.inference.engine import Computation, Engine
from protembed.inputs import STANDARD_STREAM, default_path
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, write_checkpoint_files
from protembed.report.attention import (
    PRECISION_COLUMNS,
    SITE_COLUMNS,
    STRUCTURE_COLUMNS,
    head_columns,
    head_rows,
    precision_rows,
    site_rows,
    structure_row,
    write_table,
)
from protembed.report.attention_gallery import Gallery
from protembed.report.card import pretrained_card

# A protein's maps are many times larger than its vectors: few are held at a time.
_TOKENS_PER_CHUNK = 4096
_STATISTICS = "heads.tsv"
_SIGNIFICANT = 0.05


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


def inspect_attention(
    fasta: Sequence[Path],
    model: ModelConfig,
    attention: AttentionConfig,
    *,
    reader: ReaderConfig | None = None,
    compute: ComputeConfig | None = None,
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
        on_protein: told the residues of each protein that is finished.

    Raises:
        OutputExistsError: the directory stands there already.
        ProtembedError: the input, the model or the output does not allow it; see `protembed.errors`.
    """
    reader, compute = reader or ReaderConfig(), compute or ComputeConfig()
    output = attention.output or default_path(fasta[0], ".attention")
    if output == STANDARD_STREAM:
        raise ConfigError("--output", str(output), "a directory is expected")
    if output.exists() and not attention.force:
        raise OutputExistsError(output, "may be another result")
    checkpoint = load_checkpoint(find_model(model.model))
    device = choose_device(compute)
    checkpoint.to(device)
    chains = [chain for path in attention.structures for chain in read_chains(path)]
    sites = [] if attention.sites is None else read_sites(attention.sites)
    report = ReadReport()
    records = read_fasta(fasta, on_illegal=reader.on_illegal, report=report)
    with worker_pool(compute, device) as pool, atomic_directory(output, marker=_STATISTICS) as directory:
        engine = Engine(pool=pool, tokens_per_chunk=_TOKENS_PER_CHUNK)
        inspection = _Inspection(checkpoint, attention, chains, sites, directory)
        with inspection:
            for record, protein in engine.run(Computation(whole=inspection.read), inspection.wanting(records)):
                inspection.take(record, protein)
                on_protein(protein.num_residues)
        evidence = inspection.finish(engine)
        rows = [] if evidence is None else precision_rows(evidence)
        write_json(directory / "meta.json", inspection.facts(report))
    return AttentionSummary(
        output=output,
        num_proteins=report.num_records,
        num_maps=min(report.num_records, attention.num_maps),
        num_structures=len(inspection.structures),
        num_refused=len(report.refused),
        has_contacts=inspection.predicts_contacts,
        precisions=[dict(zip(PRECISION_COLUMNS, row, strict=True)) for row in rows],
        warnings=[*report.warnings(), *inspection.warnings],
        num_following=inspection.num_following,
    )


class _Inspection:
    """What is looked at in each protein, and what is written of it; a context while proteins are read.

    Args:
        checkpoint: the model.
        config: which layers, heads and proteins.
        chains: of the structures.
        sites: annotated residues.
        directory: of the results.

    Attributes:
        structures: a row about each protein that a structure shows.
        warnings: what the user should know about what came of it.
        num_following: of each label of the sites, the heads that attend to them with a q of at most 0.05.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: AttentionConfig,
        chains: Sequence[Chain],
        sites: Sequence[Site],
        directory: Path,
    ) -> None:
        self._checkpoint, self._config, self._chains, self._directory = checkpoint, config, chains, directory
        self._sites = SiteMarks(sites, str(config.sites))
        self._reader = _reader(checkpoint, config)
        self._statistics = HeadStatistics()
        self._wanted: list[Wanted] = []
        self._kept: list[Record] = []
        self._rows: list[Sequence[Any]] = []
        self.structures: list[Sequence[Any]] = []
        self.warnings: list[str] = []
        self.num_following: dict[str, int] = {}
        self._features: list[NDArray[np.float32]] = []
        self._pairs: list[Pairs] = []
        self._seen: set[str] = set()
        self._truth: dict[str, NDArray[np.bool_]] = {}
        self._files: dict[str, Path] = {}
        self._open: dict[int, LayeredMaps] = {}

    def __enter__(self) -> "_Inspection":
        return self

    def __exit__(self, *exception: object) -> None:
        """Close what an error has left open."""
        for maps in self._open.values():
            maps.close({})

    @property
    def predicts_contacts(self) -> bool:
        """Whether there is a fitted contact head, by now."""
        return self._reader.contact_head is not None

    def wanting(self, records: Iterable[Record]) -> Iterator[Record]:
        """Decide what is wanted of each protein while they are read."""
        for number, record in enumerate(records):
            is_kept, is_new = number < self._config.num_maps, record.sequence not in self._seen
            if is_kept or self._chains:
                self._seen.add(record.sequence)
            self._wanted.append(
                Wanted(
                    file=self._maps_file(number, record) if is_kept and is_new else None,
                    region=self._part(len(record.sequence)) if is_kept else slice(None),
                    pairs=self._compare(number, record) if is_new else None,
                    received=record.id in self._sites,
                )
            )
            yield record

    def read(self, batch: Batch) -> list[ProteinAttention]:
        """Compute what is wanted of a batch."""
        return self._reader.read(batch, [self._wanted[row] for row in batch.rows.tolist()])

    def take(self, record: Record, protein: ProteinAttention) -> None:
        """Take in what was computed of a protein."""
        number = len(self._rows)
        self._statistics.add(protein)
        wanted, name = self._wanted[number], ""
        if protein.file is not None and record.sequence not in self._files:
            self._files[record.sequence] = self._maps_path(number)
            self._close(protein, wanted.region)
        if number < self._config.num_maps:
            # A copy of a protein shares its maps.
            name = str(self._files[record.sequence].relative_to(self._directory))
            self._kept.append(record)
        self._rows.append([number + 1, record.id, protein.num_residues, name])
        if wanted.pairs is not None and protein.features is not None:
            self._features.append(protein.features)
            self._pairs.append(wanted.pairs)
        if wanted.received and protein.received is not None:
            self._sites.take(record, protein.received)

    def finish(self, engine: Engine) -> ContactEvidence | None:
        """Weigh heads against structures and sites, predict contacts, and write the tables."""
        config, head = self._config, self._reader.contact_head
        own = None if head is None else Combination.of(head)
        evidence = None
        if config.structures:
            evidence = weigh_contacts(
                self._features, self._pairs, own, num_permutations=config.num_permutations, seed=config.seed
            )
            self._write_evidence(evidence)
        if self._reader.contact_head is None and evidence is not None and evidence.fitted.says_anything:
            self._reader = replace(self._reader, contact_head=evidence.fitted.head())
        gallery = Gallery(reader=self._reader, config=config, directory=self._directory, truths=self._truth)
        gallery.show(self._kept, engine, self._statistics.means(), evidence)
        write_table(
            self._directory / _STATISTICS, head_columns(evidence), head_rows(self._statistics.means(), evidence)
        )
        write_table(self._directory / "proteins.tsv", ["row", "id", "residues", "maps"], self._rows)
        if config.sites is not None:
            found = self._sites.weigh(num_permutations=config.num_permutations, seed=config.seed)
            num_heads = self._checkpoint.encoder.shape.num_heads
            write_table(self._directory / "sites.tsv", SITE_COLUMNS, site_rows(found, num_heads))
            self.num_following = {label: int((one.q_values <= _SIGNIFICANT).sum()) for label, one in found.items()}
            self.warnings += self._sites.warnings()
        return evidence

    def facts(self, report: ReadReport) -> dict[str, Any]:
        """Say how the results were made."""
        return {
            "protembed_version": protembed.__version__,
            "model_sha256": self._checkpoint.sha256(),
            "layers": [layer + 1 for layer in self._reader.layers],
            "heads": [head + 1 for head in self._reader.heads],
            "region": self._config.region,
            "num_permutations": self._config.num_permutations,
            "seed": self._config.seed,
            "num_proteins": report.num_records,
            "num_residues": report.num_residues,
            "num_structures": len(self.structures),
            "refused": [{"id": record.id, "line": record.line, "reason": record.reason} for record in report.refused],
        }

    def _compare(self, number: int, record: Record) -> Pairs | None:
        """Find a protein among the structures, and list its pairs of residues."""
        match = match_chain(record.sequence, self._chains) if self._chains else None
        if match is None:
            return None
        is_contact, is_known = contact_map(distances(match))
        pairs = pairs_of(is_contact, is_known)
        if number < self._config.num_maps:
            self._truth[record.sequence] = is_contact
        self.structures.append(structure_row(number, record, match, int(pairs.is_contact.sum())))
        return pairs

    def _maps_path(self, number: int) -> Path:
        return self._directory / "maps" / f"protein-{number + 1:06d}.{self._config.format}"

    def _maps_file(self, number: int, record: Record) -> Callable[[], LayeredMaps]:
        """Prepare the file of a protein's maps, named by its row."""
        part = self._part(len(record.sequence))
        num_residues = len(range(*part.indices(len(record.sequence))))
        shape = (len(self._reader.layers), len(self._reader.heads), num_residues, num_residues)

        def make() -> LayeredMaps:
            if number in self._open:  # memory did not suffice for the pack, and its halves begin anew
                self._open[number].close({})
            self._open[number] = LayeredMaps(self._maps_path(number), shape, self._config.dtype)
            return self._open[number]

        return make

    def _close(self, protein: ProteinAttention, part: slice) -> None:
        """Write beside a protein's maps what they are, and what was computed from them."""
        assert protein.file is not None
        arrays = {"contacts": protein.contacts, "rollout": protein.rollout}
        kept = {
            name: array[part, part].astype(self._config.dtype) for name, array in arrays.items() if array is not None
        }
        layers, heads = (np.array(chosen) + 1 for chosen in (self._reader.layers, self._reader.heads))
        protein.file.close({**kept, "layers": layers, "heads": heads})

    def _write_evidence(self, evidence: ContactEvidence) -> None:
        write_table(self._directory / "structures.tsv", STRUCTURE_COLUMNS, self.structures)
        write_table(self._directory / "contacts.tsv", PRECISION_COLUMNS, precision_rows(evidence))
        if not evidence.fitted.says_anything:
            self.warnings.append("the regression over all heads found nothing to go by: no contact head is kept of it")
            return
        with_head = replace(self._checkpoint, contact_head=evidence.fitted.head())
        facts = {"contact head": f"L1 regression over all heads, fitted to {evidence.num_proteins} structures"}
        with atomic_directory(self._directory / "model") as directory:
            write_checkpoint_files(with_head, directory, pretrained_card(with_head, facts))

    def _part(self, num_residues: int) -> slice:
        return parse_region(self._config.region, num_residues)


def _reader(checkpoint: Checkpoint, attention: AttentionConfig) -> AttentionReader:
    shape = checkpoint.encoder.shape
    return AttentionReader(
        encoder=checkpoint.encoder,
        layers=parse_numbers("--layers", attention.layers, shape.num_layers),
        heads=parse_numbers("--heads", attention.heads, shape.num_heads),
        contact_head=checkpoint.contact_head.cpu() if checkpoint.contact_head.is_fitted else None,
        rolls_out=attention.rollout,
    )
