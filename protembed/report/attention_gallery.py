"""The first proteins of an inspection, to be looked at: figures, predicted contacts, and the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import protembed
from protembed.analysis.attention import (
    ALL_STATISTICS,
    STATISTICS,
    AttentionReader,
    ProteinAttention,
    Wanted,
    parse_region,
)
from protembed.analysis.evidence import ContactEvidence
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.files import write_text
from protembed.inference.engine import Computation, Engine
from protembed.report.attention import page_tables, write_casp, write_contacts
from protembed.report.attention_figures import draw_attention, draw_contacts, draw_heads
from protembed.report.attention_page import AttentionPage, ShownProtein

# Numbers of a protein's maps that are held to draw them; those of larger proteins are in the files alone.
MOST_SHOWN = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Shows proteins.

    Attributes:
        reader: of the attention, with a contact head if there is one by now.
        config: which region, and the format of the figures.
        directory: of the results.
        truths: the contacts of structures, (residues, residues), by sequence.
    """

    reader: AttentionReader
    config: AttentionConfig
    directory: Path
    truths: Mapping[str, NDArray[np.bool_]]

    def show(
        self, records: Sequence[Record], engine: Engine, means: NDArray[np.float64], evidence: ContactEvidence | None
    ) -> None:
        """Read the maps of some proteins once more, now that there may be a contact head, and show them.

        Args:
            records: of the proteins, by their rows; one whose maps are too large to be held is left out.
            engine: computes.
            means: (statistics, layer, head), of all proteins.
            evidence: what the heads know of contacts; None without structures.
        """
        reader = self.reader
        page = AttentionPage([layer + 1 for layer in reader.layers], [head + 1 for head in reader.heads])
        shown = [(number, record) for number, record in enumerate(records) if self._can_be_held(record)]
        for (number, _), (record, protein) in zip(shown, self._read(engine, [one for _, one in shown]), strict=True):
            self._draw(f"protein-{number + 1:06d}", record, protein, page)
        named = dict(zip(ALL_STATISTICS, means[:, list(reader.layers)][..., list(reader.heads)], strict=True))
        for path in self._figure_paths("heads"):
            draw_heads(path, {name: means[place] for place, name in enumerate(STATISTICS)})
        if shown:
            text = page.render(named, page_tables(means, evidence), protembed.__version__)
            write_text(self.directory / "report.html", text)

    def _read(self, engine: Engine, records: Sequence[Record]) -> Iterator[tuple[Record, ProteinAttention]]:
        reader = replace(self.reader, rolls_out=False)

        def read(batch: Batch) -> list[ProteinAttention]:
            return reader.read(batch, [Wanted(maps=True)] * len(batch.rows))

        return engine.run(Computation(whole=read), records)

    def _draw(self, name: str, record: Record, protein: ProteinAttention, page: AttentionPage) -> None:
        one = self._region_of(record, protein)
        layers, heads = page.layers, page.heads
        for path in self._figure_paths(name):
            draw_attention(path, one.maps, f"{record.id} ({protein.num_residues} residues)", layers, heads)
        if protein.contacts is not None and one.contacts is not None:
            path = self.directory / "contacts" / name
            write_contacts(path.with_suffix(".tsv"), protein.contacts)
            write_casp(path.with_suffix(".rr"), record, protein.contacts)
            for path in self._figure_paths(f"{name}-contacts"):
                draw_contacts(path, one.contacts, one.truth, record.id)
        page.add(one)

    def _region_of(self, record: Record, protein: ProteinAttention) -> ShownProtein:
        """Choose what is shown of a protein."""
        assert protein.maps is not None
        part = parse_region(self.config.region, protein.num_residues)
        truth = self.truths.get(record.sequence)
        return ShownProtein(
            id=record.id,
            sequence=record.sequence[part],
            maps=protein.maps[..., part, part],
            contacts=None if protein.contacts is None else protein.contacts[part, part],
            truth=None if truth is None else truth[part, part],
            first_residue=part.start + 1,
        )

    def _figure_paths(self, name: str) -> list[Path]:
        formats = ("png", "svg") if self.config.figures == "both" else (self.config.figures,)
        return [self.directory / "figures" / f"{name}.{suffix}" for suffix in formats]

    def _can_be_held(self, record: Record) -> bool:
        # The whole protein is computed, whatever is shown of it.
        return len(self.reader.layers) * len(self.reader.heads) * len(record.sequence) ** 2 <= MOST_SHOWN
