"""The report of an inspection: figures, predicted contacts and the page of the first proteins."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.attention.contact_figure import draw_contacts
from protembed.attention.figures import draw_attention, draw_heads
from protembed.attention.head_statistics import STATISTICS
from protembed.attention.maps import ProteinAttention, parse_region
from protembed.attention.page import AttentionPage
from protembed.attention.page_content import PageFacts, page_content
from protembed.attention.pictures import DisplayedProtein, block_size
from protembed.attention.ranked_contacts import RankedContacts, held_out_matrix, rank_contacts
from protembed.attention.structure_matching import MatchedProtein
from protembed.attention.tables import STATISTIC_LABELS, Evaluation, write_casp, write_contacts
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.fasta import Record
from protembed.io.writing import write_text


def _within(residues: Sequence[int], part: slice) -> list[int]:
    """List the residues in a region, from 0 at its first."""
    return [residue - part.start for residue in residues if part.start <= residue < part.stop]


def _rank(contacts: NDArray[np.floating], matched: MatchedProtein | None) -> dict[str, RankedContacts]:
    """Rank predicted contacts; a regression that was fitted to the protein itself is replaced by one that was not."""
    if matched is None:
        return rank_contacts(contacts, None)
    held_out = None if matched.held_out is None else held_out_matrix(matched.held_out, matched.pairs)
    return rank_contacts(contacts if held_out is None else held_out, matched.pairs)


class AttentionReport:
    """Draws the displayed layers and heads, from 0, protein by protein, and writes predicted contacts and the page.

    The contacts of a predictor that found none are written, and not drawn.
    """

    def __init__(
        self,
        directory: Path,
        config: AttentionConfig,
        layers: Sequence[int],
        heads: Sequence[int],
        *,
        draws_contacts: bool = True,
    ) -> None:
        self._directory, self._config, self._draws_contacts = directory, config, draws_contacts
        self._displayed = np.ix_(layers, heads)
        self._page = AttentionPage([layer + 1 for layer in layers], [head + 1 for head in heads])

    def add(
        self,
        record: Record,
        protein: ProteinAttention,
        contacts: NDArray[np.float32] | None,
        matched: MatchedProtein | None,
        sites: Mapping[str, Sequence[int]],
    ) -> None:
        """Draw the next protein, write its predicted contacts, and add it to the page.

        The maps and their strongest pairs are those of the displayed region, and everything else is of the whole
        protein; see `DisplayedProtein`.
        """
        assert protein.maps is not None, "the maps were requested"
        part = parse_region(self._config.region, len(record.sequence))
        drawn = contacts if self._draws_contacts else None
        displayed = DisplayedProtein(
            id=record.id,
            sequence=record.sequence[part],
            maps=protein.maps,
            contacts=None if drawn is None else drawn[part, part],
            truth=None if matched is None else matched.pairs.contact_map()[part, part],
            ranked={} if drawn is None else {name: pairs.within(part) for name, pairs in _rank(drawn, matched).items()},
            first_residue=part.start + 1,
            block=block_size(part.stop - part.start, protein.maps.shape[-1]),
            strongest=protein.strongest,
            sites={label: _within(residues, part) for label, residues in sites.items()},
            covered=None if matched is None else _within(matched.pairs.residues.tolist(), part),
        )
        self._draw(f"protein-{record.row + 1:06d}", displayed, len(record.sequence))
        if contacts is not None:
            path = self._directory / "contacts" / f"protein-{record.row + 1:06d}.tsv"
            write_contacts(path, contacts)
            write_casp(path.with_suffix(".rr"), record, contacts)
        self._page.add(displayed)

    def _draw(self, name: str, protein: DisplayedProtein, num_residues: int) -> None:
        blocks = "" if protein.block == 1 else f", maximum of each {protein.block} x {protein.block} block"
        for path in self._figure_paths(name):
            title = f"{protein.id} ({num_residues} residues{blocks})"
            draw_attention(path, protein.maps, title, self._page.layers, self._page.heads)
        if protein.contacts is not None:
            for path in self._figure_paths(f"{name}-contacts"):
                draw_contacts(path, protein)

    def write(self, evaluation: Evaluation, facts: PageFacts) -> None:
        """Draw the statistics of the heads, and write the page, with what was run on what, if it shows a protein."""
        labelled = dict(zip(STATISTIC_LABELS.values(), evaluation.statistics.means, strict=True))
        for path in self._figure_paths("heads"):
            draw_heads(path, dict(islice(labelled.items(), len(STATISTICS))))
        if self._page.num_proteins:
            statistics = {label: values[self._displayed] for label, values in labelled.items()}
            content = page_content(evaluation, facts, statistics)
            write_text(self._directory / "report.html", self._page.render(content))

    def _figure_paths(self, name: str) -> list[Path]:
        formats = ("png", "svg") if self._config.figure_format == "both" else (self._config.figure_format,)
        return [self._directory / "figures" / f"{name}.{suffix}" for suffix in formats]
