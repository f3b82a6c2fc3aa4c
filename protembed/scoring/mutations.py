"""Substitutions: how they are spelled, made, undone, checked against a wild type, and found between two sequences."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from Bio.Data.IUPACData import protein_letters_3to1

from protembed.data.alphabet import AMINO_ACIDS, RESIDUES
from protembed.errors import MismatchedResidueError, TableError, UnsupportedVariantError

# Up to nine digits: longer than any protein, and shorter than what Python refuses to convert.
_LETTERS = "[A-Z]|" + "|".join(protein_letters_3to1)
_SUBSTITUTION = re.compile(rf"(?:p\.)?\(?({_LETTERS})(-?[0-9]{{1,9}})({_LETTERS}|=)\)?", re.IGNORECASE)
_SEVERAL = re.compile(r"(?:p\.)?\[(.*)\]")  # of HGVS
_SEPARATORS = re.compile(r"[:;,/+\s]+")
# `_sy` is Enrich2's: nothing but silent mutations of the gene.
_WILD_TYPE = ("wt", "_wt", "wildtype", "wild-type", "wild_type", "wild type", "_sy", "p.=", "p.(=)")
# The protein that HGVS may name first: of RefSeq, Ensembl, LRG or UniProt. Anything else may be a misspelled mutation.
_ACCESSION = re.compile(
    r"(?:[NXY]P_[0-9]+|ENS[A-Z]*P[0-9]{11}|LRG_[0-9]+p[0-9]+|[A-Z][0-9][A-Z0-9]{3}[0-9](?:[A-Z0-9]{3}[0-9])?)"
    r"(?:[.-][0-9]+)?:(?=p\.)"
)
_EQUALS_SIGN = re.compile("%3D", re.IGNORECASE)  # as it stands in an address, and from there in tables


class Mutation(NamedTuple):
    """One amino acid in place of another.

    Attributes:
        wild_type: what stands there without it.
        position: in the wild type, from 1.
        mutant: one of the 20 amino acids.
    """

    wild_type: str
    position: int
    mutant: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.position}{self.mutant}"


Mutations = tuple[Mutation, ...]


def parse_mutations(text: str, offset: int, path: str, line: int) -> Mutations:
    """Read mutations such as `A42G`, `p.Ala42Gly`, `NP_000001.1:p.Ala42Gly` or `A42G:K50R`; `WT` or `p.=` is none.

    Args:
        text: as it stands in a table; `;`, `,`, `/`, `+` and spaces also divide mutations.
        offset: added to each position.
        path: of the table, for messages.
        line: of the row, likewise.

    Returns:
        The mutations in the order in which they stand there, silent ones such as `A42A` too.

    Raises:
        UnscorableVariantError: one of them is no substitution of an amino acid, or there is no text.
        TableError: two of them stand at the same position.

    >>> [str(mutation) for mutation in parse_mutations("a42g:K50R", 0, "variants.csv", 2)]
    ['A42G', 'K50R']
    >>> [str(mutation) for mutation in parse_mutations("p.[Ala42Gly;Lys50=]", 0, "variants.csv", 2)]
    ['A42G', 'K50K']
    """
    if not text:
        raise UnsupportedVariantError(path, line, "the cell of mutations is empty (the wild type is spelled WT or p.=)")
    accession = _ACCESSION.match(text)
    text = _EQUALS_SIGN.sub("=", text[accession.end() :] if accession else text)
    if text.lower() in _WILD_TYPE:
        return ()
    several = _SEVERAL.fullmatch(text)
    parts = _SEPARATORS.split((several[1] if several else text).strip(":;,/+ "))
    mutations = tuple(_parse_one(part, offset, path, line) for part in parts)
    if len({mutation.position for mutation in mutations}) < len(mutations):
        raise TableError(path, f"{text[:80]!r} names a position twice", "correct the row", line=line)
    return mutations


def _parse_one(part: str, offset: int, path: str, line: int) -> Mutation:
    match = _SUBSTITUTION.fullmatch(part)
    if match is None:
        raise UnsupportedVariantError(path, line, f"{part[:40]!r} is no substitution")
    wild_type, position = _letter(match[1]), int(match[2]) + offset
    mutant = wild_type if match[3] == "=" else _letter(match[3])
    if wild_type not in RESIDUES or mutant not in AMINO_ACIDS:
        letter = mutant if wild_type in RESIDUES else wild_type
        raise UnsupportedVariantError(path, line, f"{letter!r} in {part!r} is none of the 20 amino acids")
    return Mutation(wild_type, position, mutant)


def _letter(amino_acid: str) -> str:
    """Spell an amino acid by one letter; what is none of the 20 stays as it is."""
    return protein_letters_3to1.get(amino_acid.capitalize(), amino_acid.upper())


def find_mutations(wild_type: str, mutated: str, path: str, line: int) -> Mutations:
    """Find the substitutions that turn one sequence into another of the same length.

    Raises:
        UnscorableVariantError: the lengths differ, or a new residue is none of the 20 amino acids.

    >>> [str(mutation) for mutation in find_mutations("MKTAY", "MRTAF", "variants.csv", 2)]
    ['K2R', 'Y5F']
    """
    if len(wild_type) != len(mutated):
        found = f"the mutated sequence has {len(mutated):,} residues, the wild type {len(wild_type):,}"
        raise UnsupportedVariantError(path, line, found)
    mutations = tuple(
        Mutation(old, position, new)
        for position, (old, new) in enumerate(zip(wild_type, mutated, strict=True), start=1)
        if old != new
    )
    for mutation in mutations:
        if mutation.mutant not in AMINO_ACIDS:
            found = f"{mutation.mutant!r} in place of residue {mutation.position} is none of the 20 amino acids"
            raise UnsupportedVariantError(path, line, found)
    return mutations


def mutate(wild_type: str, mutations: Iterable[Mutation]) -> str:
    """Make mutations in a sequence that they fit.

    >>> mutate("MKTAY", [Mutation("K", 2, "R")])
    'MRTAY'
    """
    residues = list(wild_type)
    for mutation in mutations:
        residues[mutation.position - 1] = mutation.mutant
    return "".join(residues)


def revert_mutations(mutated: str, mutations: Iterable[Mutation], path: str, line: int) -> str:
    """Find the wild type of a mutated sequence.

    Raises:
        MismatchedResidueError: a mutation is not to be seen in the sequence.

    >>> revert_mutations("MRTAY", [Mutation("K", 2, "R")], "variants.csv", 2)
    'MKTAY'
    """
    back = [Mutation(mutation.mutant, mutation.position, mutation.wild_type) for mutation in mutations]
    for mutation, reverse in zip(mutations, back, strict=True):
        if found := _mismatch(reverse, mutated, "the mutated sequence"):
            raise MismatchedResidueError(path, line, str(mutation), found)
    return mutate(mutated, back)


def check_mutations(mutations: Sequence[Mutation], wild_type: str, path: str, line: int) -> None:
    """Check that mutations name what stands in the wild type.

    Raises:
        MismatchedResidueError: another residue stands there, or none.
        UnscorableVariantError: no amino acid stands there but X, B, Z, U or O, which has no probability.
    """
    for mutation in mutations:
        if found := _mismatch(mutation, wild_type, "the wild type"):
            if all(_mismatch(one._replace(wild_type=one.mutant), wild_type, "") is None for one in mutations):
                advice = "the mutations stand there already: name the column of mutated sequences by --mutated-sequence"
                raise MismatchedResidueError(path, line, str(mutation), found, advice)
            raise MismatchedResidueError(path, line, str(mutation), found)
        if mutation.wild_type not in AMINO_ACIDS:
            found = f"residue {mutation.position} of the wild type is {mutation.wild_type!r}, which has no probability"
            raise UnsupportedVariantError(path, line, found)


def _mismatch(mutation: Mutation, sequence: str, what: str) -> str | None:
    """Say what stands in a sequence in place of a mutation's wild type; None if that stands there."""
    position = mutation.position
    if not 1 <= position <= len(sequence):
        return f"{what} has residues 1 to {len(sequence):,}"
    letter = sequence[position - 1]
    return None if letter == mutation.wild_type else f"residue {position} of {what} is {letter!r}"


def matching_offsets(shifts: set[int] | None, expected: Iterable[tuple[int, str]], sequence: str) -> set[int]:
    """Find by how much positions could be shifted so that the residues they name stand there.

    Args:
        shifts: those that fit rows before; None if there were none.
        expected: positions, from 1, and the residue that is said to stand at each.
        sequence: in which they should stand.
    """
    named = list(expected)
    if shifts is None:
        first = min(position for position, _ in named)
        shifts = {start - first + 1 for start in range(len(sequence))}
    return {
        shift
        for shift in shifts
        if all(
            1 <= position + shift <= len(sequence) and sequence[position + shift - 1] == residue
            for position, residue in named
        )
    }
