"""What an inspection of attention will compute, and what it has found. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

# What a head may be known for, the most interesting first.
Kind = Literal[
    "contacts",
    "sites",
    "offset",
    "previous",
    "next",
    "itself",
    "amino acid",
    "nearby",
    "cls",
    "eos",
    "even",
    "none",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What a head of each kind attends to.
KIND_NAMES: Mapping[str, str] = {
    "contacts": "contacts",
    "sites": "annotated sites",
    "offset": "a fixed offset",
    "previous": "the previous residue",
    "next": "the next residue",
    "itself": "the residue itself",
    "amino acid": "an amino acid",
    "nearby": "nearby residues",
    "cls": "<cls>",
    "eos": "<eos>",
    "even": "everything",
    "none": "no clear pattern",
}


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """The input of an inspection, with its longest protein, and its estimated peak memory and size of the results.

    Attributes:
        notes: What was understood of an unusual table of sites, in sentences.
    """

    num_proteins: int
    num_residues: int
    longest_id: str
    longest: int
    memory_bytes: int
    disk_bytes: int
    notes: Sequence[str]
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
class BestContactHead:
    """The head with the highest precision among those that follow contacts, or among all heads if none does.

    Attributes:
        layer: Number of the layer, from 1.
        head: Number of the head in its layer, from 1.
        precision: Mean long-range precision at L.
        random: The same of random pairs.
        follows_contacts: Whether it is known for contacts: significantly, and twice as precise as random pairs.
    """

    layer: int
    head: int
    precision: float
    random: float
    follows_contacts: bool


@dataclass(frozen=True, kw_only=True)
class AttentionSummary:
    """The results of an inspection.

    Attributes:
        num_maps: Number of proteins whose maps are saved.
        num_structures: Number of proteins that match a structure.
        num_refused: Number of records that were skipped on request.
        has_contacts: Whether contacts are predicted, by the model's contact head or by one fitted to the structures.
        precisions: Rows of `contacts.tsv` by column; empty without structures.
        num_heads: Number of heads of each kind of `KINDS` that occurs.
        best_contact_head: None without structures.
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
    num_heads: Mapping[str, int]
    best_contact_head: BestContactHead | None
    num_following: Mapping[str, int]
    sites: Mapping[str, SiteSummary]
    plan: AttentionPlan | None
    was_done: bool = False
