"""What figures and page call the columns of the tables of `inspect-attention`: words, and the unit in brackets."""

from collections.abc import Mapping
from types import MappingProxyType

from Bio.Data.IUPACData import protein_letters_1to3

from protembed.data.alphabet import AMINO_ACIDS

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "entropy": "entropy (nats)",
        "mean_distance": "mean distance (residues)",
        "on_self": "share on the residue itself",
        "on_neighbours": "share on its two neighbours",
        "on_cls": "share on <cls>",
        "on_eos": "share on <eos>",
        **{f"on_{letter}": f"share on {protein_letters_1to3[letter]} ({letter})" for letter in AMINO_ACIDS},
        "long_range_p_at_l": "long-range precision at L",
        "contact_effect": "contact effect (0.5: none)",
        "contact_p": "p of contacts",
        "contact_q": "q of contacts",
        "contact_proteins": "proteins with an effect above 0.5",
        "range": "separation",
        "pairs": "pairs picked",
        "precision": "precision (share of contacts)",
        "low": "95 % interval from",
        "high": "95 % interval to",
        "random": "random pairs",
        "same_separations": "pairs of the same separations",
        "effect": "effect (0.5: none)",
        "compared_proteins": "proteins compared",
        "residues": "labelled residues",
        "compared_residues": "of these compared",
    }
)


def spell_column(column: str) -> str:
    """Name a column as a reader does; one that is a word already keeps its name.

    >>> spell_column("mean_distance"), spell_column("head")
    ('mean distance (residues)', 'head')
    """
    return _NAMES.get(column, column)
