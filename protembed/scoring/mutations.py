"""Substitutions: parsed, applied, reverted, checked against a wild type, and derived from two sequences."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from Bio.Data.IUPACData import protein_letters_3to1

from protembed.data.alphabet import AMINO_ACIDS, RESIDUES, residue_letter
from protembed.data.fasta import is_nucleotide_like
from protembed.errors import MismatchedResidueError, TableError, UnsupportedVariantError
from protembed.text import name_foreign_letters, without_invisible

_LETTERS = "[A-Z]|" + "|".join(protein_letters_3to1)
# Up to nine digits: enough for any protein, and few enough for Python to convert.
_SUBSTITUTION = re.compile(rf"(?:p\.)?\(?({_LETTERS})(-?[0-9]{{1,9}})({_LETTERS}|=)\)?", re.IGNORECASE)
_HGVS_LIST = re.compile(r"(?:p\.)?\[(.*)\]")
# Dashes and `_` separate mutations only between letters: `A4_K8del` is one deletion, and -5 is a position.
_SEPARATORS = re.compile(
    r"(?:[:;,/+|&\s\u00b7\u2022]|(?<=\s)(?:and|[\u2013-])(?=\s))+|(?<=[A-Za-z=)])[_\u2013-](?=[A-Za-z(])"
)
# As papers write mutations: `Ala42→Gly`, `A42>G`; `Ala-42-Gly`, `A 42 G`.
_ARROW = re.compile(r"(?<=[0-9])\s*(?:\u2192|\u21d2|[-=]?>)\s*(?=[A-Za-z])")
_SPREAD = re.compile(rf"(?<![^\W_])({_LETTERS})([ _-])([0-9]{{1,9}})\2({_LETTERS})(?![^\W_])", re.IGNORECASE)
# Enrich2 writes `_sy` for a variant with silent mutations of the gene only.
_WILD_TYPE = ("wt", "_wt", "wildtype", "wild-type", "wild_type", "wild type", "wildtyp", "_sy", "p.=", "p.(=)")
# What HGVS may name first: a protein of RefSeq, Ensembl, LRG or UniProt, or a gene. Other prefixes may be misspelled
# mutations, as may be a name that begins like one, such as `LYS2`.
_REFERENCE = re.compile(
    r"^(?:[NXY]P_[0-9]+|ENS[A-Z]*P[0-9]{11}|LRG_[0-9]+p[0-9]+|[A-Z][0-9][A-Z0-9]{3}[0-9](?:[A-Z0-9]{3}[0-9])?"
    rf"|(?!(?:{'|'.join(protein_letters_3to1).upper()})[0-9])[A-Z]{{2}}[A-Z0-9-]*)"
    r"(?:[.-][0-9]+)?(?:\([A-Za-z0-9-]+\))?[: ](?=p\.)"
)
# As ClinVar names a variant: `NM_000059.4(BRCA2):c.5074G>C (p.Asp1692His)`.
_DNA_AND_PROTEIN = re.compile(r"[^\s:]+:[cn]\.\S+ \((p\.\S+)\)")
_DNA = re.compile(r"(?:^|:)[cgmn]\.")
_EQUALS_SIGN = re.compile("%3D", re.IGNORECASE)  # percent-encoded, as in URLs and tables made from them


class Mutation(NamedTuple):
    """One amino acid in place of another.

    Attributes:
        position: Position in the wild type, from 1.
        mutant: Residue of the mutated sequence, one of the 20 amino acids.
    """

    wild_type: str
    position: int
    mutant: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.position}{self.mutant}"

    @property
    def reverse(self) -> "Mutation":
        """The mutation back to the wild type."""
        return Mutation(self.mutant, self.position, self.wild_type)


Mutations = tuple[Mutation, ...]


class Place(NamedTuple):
    """The row of a table that a message is about."""

    path: str
    line: int


def _letter(amino_acid: str) -> str:
    """Return the one-letter code of an amino acid; any other text is only upper-cased."""
    return protein_letters_3to1.get(amino_acid.capitalize(), amino_acid.upper())


def is_residue(text: str) -> bool:
    """Return whether a text is the code of one residue.

    >>> is_residue("k"), is_residue("Lys"), is_residue("MK")
    (True, True, False)
    """
    return residue_letter(text) is not None


def is_wild_type(text: str) -> bool:
    """Return whether a text, such as `WT`, names the wild type in place of mutations."""
    return text.lower() in _WILD_TYPE


def _parse_mutation(name: str, offset: int, place: Place) -> Mutation:
    match = _SUBSTITUTION.fullmatch(name)
    if match is None:
        found = f"{name[:40]!r} is not a substitution{name_foreign_letters(name[:40])}"
        raise UnsupportedVariantError(*place, found)
    wild_type, position = _letter(match[1]), int(match[2]) + offset
    mutant = wild_type if match[3] == "=" else _letter(match[3])
    if wild_type not in RESIDUES or mutant not in AMINO_ACIDS:
        letter = mutant if wild_type in RESIDUES else wild_type
        raise UnsupportedVariantError(*place, f"{letter!r} in {name!r} is not one of the 20 amino acids")
    return Mutation(wild_type, position, mutant)


def _join_parts(text: str) -> str:
    """Join the residues and the position of each mutation, though arrows, dashes or spaces stand between them."""
    return _SPREAD.sub(r"\1\3\4", _ARROW.sub("", text))


def parse_mutations(text: str, offset: int, place: Place) -> Mutations:
    """Parse mutations such as `A42G`, `p.Ala42Gly`, `NP_000001.1:p.Ala42Gly` or `A42G:K50R`; `WT` or `p.=` is none.

    `:`, `;`, `,`, `/`, `+`, `|`, `&`, `and` and spaces separate mutations, and so do `_` and dashes between letters.
    Silent ones such as `A42A` are kept. Invisible characters are ignored. The offset is added to each position.

    Raises:
        UnsupportedVariantError: A mutation is not a substitution of an amino acid, or the text is empty.
        TableError: Two mutations have the same position.

    >>> [str(mutation) for mutation in parse_mutations("a42g:K50R", 0, Place("variants.csv", 2))]
    ['A42G', 'K50R']
    >>> [str(mutation) for mutation in parse_mutations("p.[Ala42Gly;Lys50=]", 0, Place("variants.csv", 2))]
    ['A42G', 'K50K']
    >>> [str(mutation) for mutation in parse_mutations("Ala-42-Gly, K50>R", 0, Place("variants.csv", 2))]
    ['A42G', 'K50R']
    """
    text = without_invisible(text)
    if not text:
        raise UnsupportedVariantError(*place, "the mutations cell is empty (write WT or p.= for the wild type)")
    if protein := _DNA_AND_PROTEIN.fullmatch(text):
        text = protein[1]
    elif _DNA.search(text):
        raise UnsupportedVariantError(*place, f"{text[:40]!r} is a change of DNA")
    text = _EQUALS_SIGN.sub("=", _REFERENCE.sub("", text, count=1))
    if is_wild_type(text):
        return ()
    hgvs_list = _HGVS_LIST.fullmatch(text)
    names = _SEPARATORS.split(_join_parts(hgvs_list[1] if hgvs_list else text).strip(":;,/+| "))
    mutations = tuple(_parse_mutation(name, offset, place) for name in names)
    if len({mutation.position for mutation in mutations}) < len(mutations):
        raise TableError(place.path, f"{text[:80]!r} names a position twice", "correct the row", line=place.line)
    return mutations


def find_mutations(wild_type: str, mutated: str, place: Place) -> Mutations:
    """Find the substitutions that turn one sequence into another of the same length.

    Raises:
        UnsupportedVariantError: The lengths differ, or a new residue is not one of the 20 amino acids.

    >>> [str(mutation) for mutation in find_mutations("MKTAY", "MRTAF", Place("variants.csv", 2))]
    ['K2R', 'Y5F']
    """
    if len(wild_type) != len(mutated):
        found = f"the mutated sequence has {len(mutated):,} residues, the wild type {len(wild_type):,}"
        raise UnsupportedVariantError(*place, found)
    mutations = tuple(
        Mutation(old, position, new)
        for position, (old, new) in enumerate(zip(wild_type, mutated, strict=True), start=1)
        if old != new
    )
    for mutation in mutations:
        if mutation.mutant not in AMINO_ACIDS:
            found = f"residue {mutation.position} of the mutated sequence is {mutation.mutant!r}"
            raise UnsupportedVariantError(*place, f"{found}, which is not one of the 20 amino acids")
    return mutations


def mutate(wild_type: str, mutations: Iterable[Mutation]) -> str:
    """Apply mutations to a sequence, without checking that they fit it.

    >>> mutate("MKTAY", [Mutation("K", 2, "R")])
    'MRTAY'
    """
    residues = list(wild_type)
    for mutation in mutations:
        residues[mutation.position - 1] = mutation.mutant
    return "".join(residues)


def _mismatch(mutation: Mutation, sequence: str, what: str = "the sequence") -> str | None:
    """Describe how a sequence differs from a mutation's wild type at its position; None if it does not."""
    position = mutation.position
    if not 1 <= position <= len(sequence):
        return f"{what} has residues 1 to {len(sequence):,}"
    letter = sequence[position - 1]
    return None if letter == mutation.wild_type else f"residue {position} of {what} is {letter!r}"


def revert_mutations(mutated: str, mutations: Iterable[Mutation], place: Place) -> str:
    """Reconstruct the wild type of a mutated sequence.

    Raises:
        MismatchedResidueError: The sequence does not have one of the mutations.

    >>> revert_mutations("MRTAY", [Mutation("K", 2, "R")], Place("variants.csv", 2))
    'MKTAY'
    """
    for mutation in mutations:
        if found := _mismatch(mutation.reverse, mutated, "the mutated sequence"):
            raise MismatchedResidueError(*place, str(mutation), found)
    return mutate(mutated, [mutation.reverse for mutation in mutations])


def _advice_on_mismatch(mutations: Sequence[Mutation], wild_type: str) -> str:
    if is_nucleotide_like(wild_type):
        return "the wild type looks like nucleotides: translate its gene first"
    if not any(_mismatch(mutation.reverse, wild_type) for mutation in mutations):
        return "the sequence already has the mutations: name its column with `mutated_sequence`"
    return "correct the row, or give its wild type"


def check_mutations(mutations: Sequence[Mutation], wild_type: str, place: Place) -> None:
    """Check that the wild type has the residues that mutations replace.

    Raises:
        MismatchedResidueError: The wild type has another residue at a position, or none.
        UnsupportedVariantError: The residue is X, B, Z, U or O, which has no probability.
    """
    for mutation in mutations:
        if found := _mismatch(mutation, wild_type, "the wild type"):
            raise MismatchedResidueError(*place, str(mutation), found, _advice_on_mismatch(mutations, wild_type))
        if mutation.wild_type not in AMINO_ACIDS:
            found = f"residue {mutation.position} of the wild type is {mutation.wild_type!r}, which has no probability"
            raise UnsupportedVariantError(*place, found)


def matching_offsets(offsets: set[int] | None, mutations: Sequence[Mutation], wild_type: str) -> set[int]:
    """Find the offsets to positions with which a wild type has the residues that mutations replace.

    There is at least one mutation. The offsets are those that fit all earlier rows; None if this is the first row.
    """
    if offsets is None:
        first = min(mutation.position for mutation in mutations)
        offsets = {start - first for start in range(1, len(wild_type) + 1)}
    return {
        offset
        for offset in offsets
        if not any(_mismatch(old._replace(position=old.position + offset), wild_type) for old in mutations)
    }
