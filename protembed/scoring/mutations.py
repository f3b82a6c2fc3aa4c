"""Substitutions, insertions and deletions: parsed, applied, checked against a wild type, found in two sequences.

Source: den Dunnen et al. 2016, "HGVS recommendations for the description of sequence variants: 2016 update", for the
notation of insertions, deletions and duplications of proteins.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from Bio.Data.IUPACData import protein_letters_3to1

from protembed.data.alphabet import AMINO_ACIDS, RESIDUES, residue_letter
from protembed.data.fasta import is_nucleotide_like
from protembed.errors import MismatchedResidueError, TableError, UnsupportedVariantError
from protembed.text import name_foreign_letters, without_invisible

# The Greek letter, and the sign of mathematics that looks like it.
_DELTA = "[\u0394\u2206]"
_LETTERS = "[A-Z]|" + "|".join(protein_letters_3to1)
# Up to nine digits: enough for any protein, and few enough for Python to convert.
_SUBSTITUTION = re.compile(rf"(?:p\.)?\(?({_LETTERS})(-?[0-9]{{1,9}})({_LETTERS}|=)\)?", re.IGNORECASE)
_INDEL = re.compile(
    rf"(?:p\.)?\(?({_LETTERS})(-?[0-9]{{1,9}})(?:_({_LETTERS})(-?[0-9]{{1,9}}))?(delins|del|ins|dup)([A-Z]*)\)?",
    re.IGNORECASE,
)
# As papers write deletions: with a delta or `del` on either side.
_DELETION = re.compile(
    rf"(?:p\.)?\(?(?:(?P<before>{_DELTA}|del)\(?)?(?P<first>(?:{_LETTERS})-?[0-9]{{1,9}})"
    rf"(?:[_\u2013-](?P<last>(?:{_LETTERS})[0-9]{{1,9}}))?(?P<after>{_DELTA}|del)?\)*",
    re.IGNORECASE,
)
_NAMELESS_DELETION = re.compile(
    rf"(?:p\.)?\(?(?:(?:{_DELTA}|del)\(?[0-9]+|[0-9]+(?:[_\u2013-][0-9]+)?(?:{_DELTA}|del))(?:[_\u2013-][0-9]+)?\)*",
    re.IGNORECASE,
)
# The first or last residues of a protein, or its asparagine or cysteine at a position.
_DELETED_END = re.compile(rf"(?:p\.)?{_DELTA}\(?[NC]-?[0-9]+\)?", re.IGNORECASE)
_THREE_LETTERS = re.compile("|".join(protein_letters_3to1), re.IGNORECASE)
# What a protein sequence cannot have, by what its notation contains.
_UNSCORABLE = {
    re.compile(r"(?<=[0-9A-Za-z])fs|frameshift", re.IGNORECASE): "a frameshift, whose new residues are unknown",
    re.compile(r"[0-9](?:[A-Za-z]{3})?ext", re.IGNORECASE): "an extension of the protein, whose residues are unknown",
    re.compile(r"\*|Ter|Stop", re.IGNORECASE): "a stop codon",
}
_HGVS_LIST = re.compile(r"(?:p\.)?\[(.*)\]")
# Dashes and `_` separate mutations only between letters: `A4_K8del` is one deletion, and -5 is a position.
_SEPARATORS = re.compile(
    r"(?:[:;,/+|&\s\u00b7\u2022]|(?<=\s)(?:and|[\u2013-])(?=\s))+|"
    r"(?<=[A-Za-z=)\u0394\u2206])[_\u2013-](?=[A-Za-z(\u0394\u2206])"
)
# As papers write mutations: `Ala42→Gly`, `A42>G`; `Ala-42-Gly`, `A 42 G`.
_ARROW = re.compile(r"(?<=[0-9])\s*(?:\u2192|\u21d2|[-=]?>)\s*(?=[A-Za-z])")
_APART = re.compile(rf"(?<={_DELTA})\s+(?=[A-Z])|(?<=[0-9])\s+(?=(?:del|{_DELTA})(?![^\W_]))", re.IGNORECASE)
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
    def is_silent(self) -> bool:
        """Whether it replaces nothing."""
        return self.wild_type == self.mutant

    @property
    def reverse(self) -> "Mutation":
        """The mutation back to the wild type."""
        return Mutation(self.mutant, self.position, self.wild_type)

    @property
    def span(self) -> tuple[int, int]:
        """Where the replaced residues begin and end, from 0, the end excluded."""
        return self.position - 1, self.position

    def residues(self, wild_type: str) -> str:
        """Return what replaces the span."""
        return self.mutant


class Indel(NamedTuple):
    """An insertion, a deletion, a duplication, or a deletion with an insertion in its place.

    Attributes:
        kind: The word of HGVS: `del`, `ins`, `dup` or `delins`.
        first: First residue that the notation names, as a silent mutation.
        last: Last residue that the notation names, as a silent mutation; `first` where it names one.
        inserted: Inserted residues, of the 20 amino acids; empty for `del` and `dup`.
    """

    kind: str
    first: Mutation
    last: Mutation
    inserted: str = ""

    def __str__(self) -> str:
        ends = [f"{end.wild_type}{end.position}" for end in dict.fromkeys((self.first, self.last))]
        return "_".join(ends) + self.kind + self.inserted

    @property
    def span(self) -> tuple[int, int]:
        """Where the replaced residues begin and end, from 0, the end excluded; the same where none is replaced."""
        first, last = self.first.position - 1, self.last.position
        return {"ins": (first + 1, first + 1), "dup": (last, last)}.get(self.kind, (first, last))

    def residues(self, wild_type: str) -> str:
        """Return what replaces the span."""
        return wild_type[self.first.position - 1 : self.last.position] if self.kind == "dup" else self.inserted


Mutations = tuple[Mutation | Indel, ...]


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


def _parse_mutation(name: str, offset: int, place: Place) -> Mutation | Indel:
    match = _SUBSTITUTION.fullmatch(name)
    if match is None:
        return _parse_indel(name, offset, place)
    mutant = match[1] if match[3] == "=" else match[3]
    mutation = Mutation(_letter(match[1]), int(match[2]) + offset, _letter(mutant))
    _check_letters(mutation.wild_type, mutation.mutant, name, place)
    return mutation


def _check_letters(wild_types: str, mutants: str, name: str, place: Place) -> None:
    """Check that residues of the wild type are of the alphabet, and new ones are among the 20 amino acids."""
    wrong = [letter for letter in wild_types if letter not in RESIDUES]
    wrong += [letter for letter in mutants if letter not in AMINO_ACIDS]
    if wrong:
        raise UnsupportedVariantError(*place, f"{wrong[0]!r} in {name[:40]!r} is not one of the 20 amino acids")


def _parse_indel(name: str, offset: int, place: Place) -> Indel:
    match = _INDEL.fullmatch(_as_hgvs(name))
    residues = None if match is None else _letters(match[6], is_long=len(match[1]) == 3)
    if match is None or residues is None:
        raise UnsupportedVariantError(*place, f"{name[:40]!r} {_describe_unsupported(name)}")
    ends = [(_letter(match[1]), int(match[2]) + offset)]
    ends += [(_letter(match[3]), int(match[4]) + offset)] if match[3] else []
    first, last = (Mutation(letter, position, letter) for letter, position in (ends[0], ends[-1]))
    if problem := _problem(match[5].lower(), first.position, last.position, residues):
        raise UnsupportedVariantError(*place, f"{name[:40]!r} {problem}")
    _check_letters(first.wild_type + last.wild_type, residues, name, place)
    return Indel(match[5].lower(), first, last, residues)


def _describe_unsupported(name: str) -> str:
    """Describe a name that is no substitution, insertion or deletion of known residues."""
    if _NAMELESS_DELETION.fullmatch(name):
        return "names no residues to check against the wild type, as F508del and M1_K5del do"
    if _DELETED_END.fullmatch(name):
        return "may be a deleted end of the protein or a deleted residue (write N10del, or M1_N10del for the end)"
    meanings = [meaning for pattern, meaning in _UNSCORABLE.items() if pattern.search(name)]
    what = meanings[0] if meanings else "not a substitution, insertion or deletion"
    return f"is {what}{name_foreign_letters(re.sub(_DELTA, '', name[:40]))}"


def _as_hgvs(name: str) -> str:
    """Write a deletion as HGVS does if papers write it otherwise; leave other names as they are.

    >>> _as_hgvs("\u0394F508"), _as_hgvs("delPhe508"), _as_hgvs("M1-K5\u2206"), _as_hgvs("K23_L24insRS")
    ('F508del', 'Phe508del', 'M1_K5del', 'K23_L24insRS')
    """
    match = _DELETION.fullmatch(name)
    if match is None or bool(match["before"]) == bool(match["after"]) or _DELETED_END.fullmatch(name):
        return name
    return "_".join(filter(None, (match["first"], match["last"]))) + "del"


def _letters(text: str, *, is_long: bool) -> str | None:
    """Read residues in the code of those before them, of one or three letters; None if they are not in that code."""
    if not is_long:
        return text.upper()
    codes = _THREE_LETTERS.findall(text)
    return "".join(map(_letter, codes)) if len("".join(codes)) == len(text) else None


def _problem(kind: str, first: int, last: int, residues: str) -> str | None:
    """Describe what is wrong with an insertion or deletion by itself; None if nothing is."""
    if kind == "ins" and last != first + 1:
        return "does not name the two neighbours of the inserted residues, as K23_L24insRS does"
    if last < first:
        return "ends before it begins"
    if kind in ("ins", "delins"):
        return None if residues else "does not name the inserted residues"
    return f"names residues after {kind}, which follow from the wild type: leave them out" if residues else None


def _join_parts(text: str) -> str:
    """Join the residues and the position of each mutation, though arrows, dashes or spaces stand between them."""
    return _SPREAD.sub(r"\1\3\4", _APART.sub("", _ARROW.sub("", text)))


def parse_mutations(text: str, offset: int, place: Place) -> Mutations:
    """Parse mutations such as `A42G`, `p.Ala42Gly`, `A42G:K50R` or `p.Lys23_Val25del`; `WT` or `p.=` is none.

    `:`, `;`, `,`, `/`, `+`, `|`, `&`, `and` and spaces separate mutations, and so do `_` and dashes between letters.
    Silent ones such as `A42A` are kept. Invisible characters are ignored. The offset is added to each position.

    Raises:
        UnsupportedVariantError: A mutation is neither a substitution of an amino acid nor an insertion or deletion, or
            the text is empty.
        TableError: Two mutations have the same position.

    >>> [str(mutation) for mutation in parse_mutations("a42g:K50R", 0, Place("variants.csv", 2))]
    ['A42G', 'K50R']
    >>> [str(mutation) for mutation in parse_mutations("p.[Ala42Gly;Lys50=]", 0, Place("variants.csv", 2))]
    ['A42G', 'K50K']
    >>> [str(mutation) for mutation in parse_mutations("Ala-42-Gly, K50>R", 0, Place("variants.csv", 2))]
    ['A42G', 'K50R']
    >>> [str(mutation) for mutation in parse_mutations("p.Lys23_Leu24insArgSer", 0, Place("variants.csv", 2))]
    ['K23_L24insRS']
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
    spans = sorted(mutation.span for mutation in mutations)
    if any(left == right or left[1] > right[0] for left, right in pairwise(spans)):
        raise TableError(place.path, f"{text[:80]!r} names a position twice", "correct the row", line=place.line)
    return mutations


def find_mutations(wild_type: str, mutated: str, place: Place) -> tuple[Mutation, ...]:
    """Find the substitutions that turn one sequence into another of the same length.

    Raises:
        UnsupportedVariantError: A new residue is not one of the 20 amino acids.

    >>> [str(mutation) for mutation in find_mutations("MKTAY", "MRTAF", Place("variants.csv", 2))]
    ['K2R', 'Y5F']
    """
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


def mutate(wild_type: str, mutations: Iterable[Mutation | Indel]) -> str:
    """Apply mutations to a sequence, without checking that they fit it.

    >>> mutate("MKTAY", [Mutation("K", 2, "R")])
    'MRTAY'
    >>> mutate("MKTAY", parse_mutations("K2_T3dup:A4del", 0, Place("variants.csv", 2)))
    'MKTKTY'
    """
    parts, end = list[str](), 0
    for mutation in sorted(mutations, key=lambda mutation: mutation.span):
        start, after = mutation.span
        parts += [wild_type[end:start], mutation.residues(wild_type)]
        end = after
    return "".join([*parts, wild_type[end:]])


def keeps_positions(mutations: Mutations) -> bool:
    """Return whether no mutation shifts the residues after it."""
    return all(
        mutation.kind == "delins" and len(mutation.inserted) == mutation.span[1] - mutation.span[0]
        for mutation in mutations
        if isinstance(mutation, Indel)
    )


def check_indels(wild_type: str, mutated: str, place: Place) -> None:
    """Check that a pseudo-log-likelihood says something about a mutated sequence of any length.

    Raises:
        UnsupportedVariantError: No amino acid is left, or a residue without a probability is new.
    """
    if not any(letter in AMINO_ACIDS for letter in mutated):
        raise UnsupportedVariantError(*place, "no amino acid is left in the mutated sequence")
    new = Counter(mutated) - Counter(wild_type)
    if unknown := [letter for letter in new if letter not in AMINO_ACIDS]:
        found = f"the mutated sequence has {unknown[0]!r}, which is not one of the 20 amino acids"
        raise UnsupportedVariantError(*place, f"{found} and not in the wild type")


def _mismatch(mutation: Mutation, sequence: str, what: str = "the sequence") -> str | None:
    """Describe how a sequence differs from a mutation's wild type at its position; None if it does not."""
    position = mutation.position
    if not 1 <= position <= len(sequence):
        return f"{what} has residues 1 to {len(sequence):,}"
    letter = sequence[position - 1]
    return None if letter == mutation.wild_type else f"residue {position} of {what} is {letter!r}"


def revert_mutations(mutated: str, mutations: Iterable[Mutation | Indel], place: Place) -> str:
    """Reconstruct the wild type of a mutated sequence.

    Raises:
        MismatchedResidueError: The sequence does not have one of the mutations.
        TableError: A mutation is an insertion or deletion, which does not name all residues.

    >>> revert_mutations("MRTAY", [Mutation("K", 2, "R")], Place("variants.csv", 2))
    'MKTAY'
    """
    substitutions = list[Mutation]()
    for mutation in mutations:
        if isinstance(mutation, Indel):
            found = f"the wild type does not follow from {mutation} and the mutated sequence"
            raise TableError(place.path, found, "give it with `wild_type` or `sequence`", line=place.line)
        if found_there := _mismatch(mutation.reverse, mutated, "the mutated sequence"):
            raise MismatchedResidueError(*place, str(mutation), found_there)
        substitutions.append(mutation)
    return mutate(mutated, [mutation.reverse for mutation in substitutions])


def _advice_on_mismatch(mutations: Mutations, wild_type: str) -> str:
    if is_nucleotide_like(wild_type):
        return "the wild type looks like nucleotides: translate its gene first"
    substitutions = [mutation for mutation in mutations if isinstance(mutation, Mutation)]
    if not any(_mismatch(mutation.reverse, wild_type) for mutation in substitutions) and substitutions:
        return "the sequence already has the mutations: give the wild type, or name its column with `mutated_sequence`"
    return "correct the row, or give its wild type"


def named_residues(mutations: Mutations) -> list[Mutation]:
    """List what mutations say about the wild type: its residue at a position."""
    return [end for mutation in mutations for end in (mutation[1:3] if isinstance(mutation, Indel) else (mutation,))]


def check_mutations(mutations: Mutations, wild_type: str, place: Place) -> None:
    """Check that the wild type has the residues that mutations name.

    Raises:
        MismatchedResidueError: The wild type has another residue at a position, or none.
        UnsupportedVariantError: A replaced residue is X, B, Z, U or O, which has no probability.
    """
    for mutation in mutations:
        for named in named_residues((mutation,)):
            if found := _mismatch(named, wild_type, "the wild type"):
                advice = _advice_on_mismatch(mutations, wild_type)
                raise MismatchedResidueError(*place, str(mutation), found, advice)
        if isinstance(mutation, Mutation) and mutation.wild_type not in AMINO_ACIDS:
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
