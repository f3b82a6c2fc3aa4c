"""The first proteins of an inspection, to be looked at: figures, predicted contacts, and the page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed._version import __version__
from protembed.analysis.attention import (
    ALL_STATISTICS,
    STATISTICS,
    AttentionReader,
    ProteinAttention,
    Wanted,
    parse_region,
)
from protembed.analysis.blocks import block_size, pixels_on_a_side
from protembed.analysis.evidence import ContactEvidence
from protembed.analysis.site_marks import SiteResult
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.inference.engine import Computation, Engine
from protembed.io.writing import write_text
from protembed.report.attention import page_tables, write_casp, write_contacts
from protembed.report.attention_figures import draw_attention, draw_contacts, draw_heads
from protembed.report.attention_page import AttentionPage, ShownProtein
from protembed.report.attention_words import spell_column


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Shows proteins.

    Attributes:
        reader: of the attention, with a contact head if there is one by now.
        config: which region, and the format of the figures.
        directory: of the results.
        truths: the contacts of structures, (residues, residues), by sequence.
        sites: Lists the labelled residues of a protein, from 0, by label.
    """

    reader: AttentionReader
    config: AttentionConfig
    directory: Path
    truths: Mapping[str, NDArray[np.bool_]]
    sites: Callable[[Record], Mapping[str, Sequence[int]]]

    def show(
        self,
        records: Sequence[Record],
        engine: Engine,
        means: NDArray[np.float64],
        evidence: ContactEvidence | None,
        of_sites: Mapping[str, SiteResult],
    ) -> None:
        """Read the maps of some proteins once more, now that there may be a contact head, and show them.

        Args:
            records: of the proteins, by their rows.
            engine: computes.
            means: (statistics, layer, head), of all proteins.
            evidence: what the heads know of contacts; None without structures.
            of_sites: Which heads attend to sites, by label; empty without sites.
        """
        reader = self.reader
        page = AttentionPage([layer + 1 for layer in reader.layers], [head + 1 for head in reader.heads])
        most_pixels = pixels_on_a_side(len(records), len(reader.layers) * len(reader.heads))
        for number, (record, protein) in enumerate(self._read(engine, records, most_pixels), start=1):
            shown = self._region_of(record, protein, most_pixels)
            self._draw(f"protein-{number:06d}", record, protein, shown)
            page.add(shown)
        names = [spell_column(name) for name in ALL_STATISTICS]
        named = dict(zip(names, means[:, list(reader.layers)][..., list(reader.heads)], strict=True))
        for path in self._figure_paths("heads"):
            draw_heads(path, dict(zip(names, means[: len(STATISTICS)], strict=False)))
        if records:
            text = page.render(named, page_tables(means, evidence, of_sites), __version__)
            write_text(self.directory / "report.html", text)

    def _read(
        self, engine: Engine, records: Sequence[Record], most_pixels: int
    ) -> Iterator[tuple[Record, ProteinAttention]]:
        reader = replace(self.reader, rolls_out=False)
        regions = [parse_region(self.config.region, len(record.sequence)) for record in records]
        wanted = [Wanted(maps=True, most_pixels=most_pixels, region=region) for region in regions]

        def read(batch: Batch) -> list[ProteinAttention]:
            return reader.read(batch, [wanted[row] for row in batch.rows.tolist()])

        return engine.run(Computation(whole=read), records)

    def _draw(self, name: str, record: Record, protein: ProteinAttention, shown: ShownProtein) -> None:
        layers, heads = ([number + 1 for number in chosen] for chosen in (self.reader.layers, self.reader.heads))
        for path in self._figure_paths(name):
            draw_attention(path, shown.maps, _title(shown, protein.num_residues), layers, heads)
        if protein.contacts is not None and shown.contacts is not None:
            path = self.directory / "contacts" / name
            write_contacts(path.with_suffix(".tsv"), protein.contacts)
            write_casp(path.with_suffix(".rr"), record, protein.contacts)
            for path in self._figure_paths(f"{name}-contacts"):
                draw_contacts(path, shown.contacts, shown.truth, record.id, shown.first_residue)

    def _region_of(self, record: Record, protein: ProteinAttention, most_pixels: int) -> ShownProtein:
        """Choose what is shown of a protein."""
        assert protein.maps is not None
        part = parse_region(self.config.region, protein.num_residues)
        truth = self.truths.get(record.sequence)
        return ShownProtein(
            id=record.id,
            sequence=record.sequence[part],
            maps=protein.maps.astype(
                self.config.dtype, copy=False
            ),  # as the arrays have it, so that the page agrees with them
            contacts=None if protein.contacts is None else protein.contacts[part, part],
            truth=None if truth is None else truth[part, part],
            first_residue=part.start + 1,
            block=block_size(part.stop - part.start, most_pixels),
            sites={
                label: [place - part.start for place in places if part.start <= place < part.stop]
                for label, places in self.sites(record).items()
            },
        )

    def _figure_paths(self, name: str) -> list[Path]:
        formats = ("png", "svg") if self.config.figures == "both" else (self.config.figures,)
        return [self.directory / "figures" / f"{name}.{suffix}" for suffix in formats]


def _title(shown: ShownProtein, num_residues: int) -> str:
    blocks = "" if shown.block == 1 else f", the highest of each {shown.block} x {shown.block}"
    return f"{shown.id} ({num_residues} residues{blocks})"
