"""The page of `inspect-attention`: heads by what they attend to, their maps, contacts and tables, in one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.attention.head_kinds import HeadKind
from protembed.attention.pictures import (
    BYTES_PER_PROTEIN,
    DisplayedProtein,
    encode_contacts,
    encode_map,
    encode_ranked,
    encode_strongest,
)
from protembed.attention.summary import Kind
from protembed.report.design import COLOURS, SCALES, scale_colours
from protembed.report.page import Card, Element, Page, Section, Widget, render_page
from protembed.report.table import Prose
from protembed.text import pluralize, printable

_SCRIPTS = (
    "drawing.js",
    "attention_picture.js",
    "attention_view.js",
    "attention.js",
    "attention_sequence.js",
    "attention_heads.js",
    "attention_grid.js",
    "attention_arcs.js",
)
# Kinds of heads as buttons name them, in the order of interest.
_BUTTON_NAMES: Mapping[Kind, str] = {
    "contacts": "contacts",
    "sites": "annotated sites",
    "offset": "fixed distance",
    "previous": "previous residue",
    "next": "next residue",
    "itself": "itself",
    "amino acid": "amino acids",
    "nearby": "nearby residues",
    "cls": "<cls>",
    "eos": "<eos>",
    "even": "everything",
    "none": "no clear pattern",
}
_HEADS = (
    "For every residue, an attention head decides from which other residues the model takes information. The list "
    "begins with the heads that matter most; the bar shows how strongly a head does what it is listed for, and the "
    "mark on it a head without any preference. In the map, each row shows what one residue attends to."
)


@dataclass(frozen=True, kw_only=True)
class PageContent:
    """What the page says about the heads of the model, beside the pictures of proteins.

    Attributes:
        title: Title of the page.
        facts: What was run on what, by name.
        summary: Two sentences with the finding.
        cards: The numbers that matter most.
        kinds: What each head of the model is known for, the most interesting first.
        statistics: Values of the displayed layers and heads by the name on the page, (layers, heads); NaN where a value
            is undefined.
        contacts: What is said about contacts above and below their map.
        precisions: Precision over all proteins of the predictor whose contacts are drawn, by range and fraction.
        ranking: What ranks the pairs of the contact map.
        sites: What is said about annotated residues; empty without any.
        tables: Tables of all heads.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    summary: Sequence[Prose] = ()
    cards: Sequence[Card] = ()
    kinds: Sequence[HeadKind] = ()
    statistics: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    contacts: Sequence[Element] = ()
    precisions: Mapping[str, Any] = field(default_factory=dict)
    ranking: Prose = ""
    sites: Sequence[Element] = ()
    tables: Sequence[Element] = ()


class AttentionPage:
    """Collects proteins one at a time, holding only their encoded pictures, and renders the page.

    Attributes:
        layers: Numbers of the displayed layers, from 1.
        heads: Numbers of the displayed heads, from 1.
    """

    def __init__(self, layers: Sequence[int], heads: Sequence[int]) -> None:
        self.layers, self.heads = list(layers), list(heads)
        self._proteins: list[dict[str, Any]] = []

    @property
    def num_proteins(self) -> int:
        """Number of added proteins."""
        return len(self._proteins)

    def add(self, protein: DisplayedProtein) -> None:
        """Add a protein to the page; its arrays are not held."""
        num_blocks = -(-len(protein.sequence) // protein.block)
        assert protein.maps.shape == (len(self.layers), len(self.heads), num_blocks, num_blocks)
        num_bytes = BYTES_PER_PROTEIN // (len(self.layers) * len(self.heads))
        self._proteins.append(
            {
                # Characters that reverse the reading direction would make one identifier look like another.
                "id": printable(protein.id),
                "sequence": protein.sequence,
                "first": protein.first_residue,
                "block": protein.block,
                "maps": [encode_map(weights, num_bytes) for layer in protein.maps for weights in layer],
                "means": [encode_map(weights, num_bytes) for weights in self._means(protein.maps)],
                "contacts": encode_contacts(protein.contacts, protein.truth),
                "covered": None if protein.covered is None else list(protein.covered),
                "strongest": encode_strongest(protein.strongest),
                "ranked": encode_ranked(protein.ranked),
                "sites": [
                    {"label": printable(label), "residues": list(residues)}
                    for label, residues in protein.sites.items()
                    if residues
                ],
            }
        )

    def _means(self, maps: NDArray[np.floating]) -> list[NDArray[np.float32]]:
        """Average the heads of each layer, and last of all layers, (blocks, blocks) each; empty for a single head."""
        if len(self.layers) * len(self.heads) == 1:
            return []
        by_layer = maps.mean(1, dtype=np.float32)
        return [*by_layer, by_layer.mean(0)]

    def render(self, content: PageContent) -> str:
        """Render the page of at least one protein.

        Returns:
            HTML that needs no other file and no network; the same bytes for the same values.
        """
        assert self._proteins, "a page shows at least one protein"
        page = Page(
            title=content.title,
            command="inspect-attention",
            facts={**content.facts, "Shown": self._shown},
            summary=content.summary,
            cards=content.cards,
            sections=self._sections(content),
            scripts=_SCRIPTS + self._contact_scripts,
            data=self._data(content),
        )
        return render_page(page)

    @property
    def _shown(self) -> str:
        sizes = {"protein": len(self._proteins), "layer": len(self.layers), "head": len(self.heads)}
        proteins, layers, heads = (pluralize(size, noun) for noun, size in sizes.items())
        return f"maps of {proteins}, {layers} and {heads} of each"

    @property
    def _contact_scripts(self) -> tuple[str, ...]:
        return ("attention_contacts.js",) if any(protein["contacts"] for protein in self._proteins) else ()

    def _sections(self, content: PageContent) -> list[Section]:
        contacts = (
            [Widget(template="attention_contacts.html", values={"ranking": content.ranking})]
            if self._contact_scripts
            else []
        )
        sections: Mapping[str, Sequence[Element]] = {
            "The protein": [Widget(template="attention_sequence.html")],
            "What each head attends to": [_HEADS, Widget(template="attention_heads.html")],
            "Pairs of residues": [Widget(template="attention_arcs.html")],
            "Contacts": [*contacts, *content.contacts],
            "Annotated sites": content.sites,
            "All heads": [Widget(template="attention_grid.html"), *content.tables],
        }
        return [Section(title=title, body=body) for title, body in sections.items() if body]

    def _data(self, content: PageContent) -> dict[str, Any]:
        """Collect what the scripts read."""
        kinds = self._displayed_kinds(content.kinds)
        counts = {kind: sum(each["kind"] == kind for each in kinds) for kind in _BUTTON_NAMES}
        statistics = content.statistics.items()
        return {
            "layers": self.layers,
            "heads": self.heads,
            "proteins": self._proteins,
            "kinds": kinds,
            "kindNames": [[kind, _BUTTON_NAMES[kind], count] for kind, count in counts.items() if count],
            "start": self._start(kinds),
            "statistics": [{"name": name, "values": _json_values(values)} for name, values in statistics],
            "colours": {
                theme: {name: getattr(colour, theme) for name, colour in COLOURS.items()} for theme in ("light", "dark")
            },
            "precisions": content.precisions,
            "scales": {use: scale_colours(use) for use in SCALES},
        }

    def _displayed_kinds(self, kinds: Sequence[HeadKind]) -> list[dict[str, Any]]:
        """List the displayed heads in the order of interest, with indices among the displayed layers and heads."""
        return [
            {
                "layer": self.layers.index(kind.layer),
                "head": self.heads.index(kind.head),
                "kind": kind.kind,
                "word": printable(kind.word),
                "sentence": printable(kind.sentence),
                "strength": float(f"{kind.strength:.6g}"),
                "expected": float(f"{kind.expected:.6g}"),
            }
            for kind in kinds
            if kind.layer in self.layers and kind.head in self.heads
        ]

    def _start(self, kinds: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Choose the most interesting head, and a protein that shows why it is interesting."""
        if not kinds:
            return {}
        shows = {"contacts": "contacts", "sites": "sites"}.get(kinds[0]["kind"])
        proteins = (number for number, protein in enumerate(self._proteins) if shows is None or protein[shows])
        return {"protein": next(proteins, 0), "layer": kinds[0]["layer"], "head": kinds[0]["head"]}


def _json_values(values: NDArray[np.floating]) -> list[list[float | None]]:
    return [[float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values]
