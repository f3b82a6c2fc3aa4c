"""Sequences that a Python user gives in memory: strings, and records of protembed or Biopython."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard

from protembed.config.common import Region
from protembed.data.alphabet import MASK_LETTER, RESIDUES
from protembed.data.fasta import Record, clean_sequence
from protembed.errors import SequenceError

if TYPE_CHECKING:
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

AnySequence: TypeAlias = "str | Seq | Record | SeqRecord"
AnySequences: TypeAlias = "AnySequence | Iterable[AnySequence]"

_EXPECTED = "a text such as 'MKTAYIAKQR', a record of read_fasta or Biopython, or a list of them is expected"
_LETTERS = f"the residues are {RESIDUES} and J (read as X), and {MASK_LETTER} or <mask> masks a position"


class Protein(NamedTuple):
    """One protein.

    Attributes:
        id: Identifier of the record; the number of the sequence, from 1, if it has none.
        sequence: Residues of the alphabet, upper case, with `?` where a position is masked.
    """

    id: str
    sequence: str


def is_one_sequence(given: AnySequences) -> TypeGuard[AnySequence]:
    """Return whether an argument is one sequence or record; otherwise it should be several."""
    return _is_text(given) or hasattr(given, "sequence") or hasattr(given, "seq")


def read_sequences(given: AnySequences, region: Region | None = None) -> list[Protein]:
    """Read one sequence or several as from FASTA: upper-cased, without white space and a final `*`, J read as X.

    Args:
        given: The sequences.
        region: Residues of each protein that are used; None for the whole protein.

    Raises:
        SequenceError: A sequence is not a text, is empty, has a character that is not a residue, or ends before the
            region begins.

    >>> [protein.sequence for protein in read_sequences(["mkt ayi*", "MK<mask>?J"])]
    ['MKTAYI', 'MK??X']
    """
    if is_one_sequence(given):
        given = [given]
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise SequenceError("the sequences", f"they are of type {type(given).__name__}", _EXPECTED)
    return [_protein(number, item, region) for number, item in enumerate(given, start=1)]


def read_one_sequence(given: AnySequence) -> Protein:
    """Read a sequence like `read_sequences`.

    Raises:
        SequenceError: There is not exactly one sequence, or it is not a protein.
    """
    proteins = read_sequences(given)
    if len(proteins) != 1:
        raise SequenceError("the sequences", f"there are {len(proteins)}, not one", "give them one at a time")
    return proteins[0]


def _is_text(given: object) -> bool:
    from Bio.Seq import Seq  # here because Biopython is not needed to look at what is given at the shell

    return isinstance(given, str | Seq)


def _protein(number: int, item: AnySequence, region: Region | None) -> Protein:
    identifier = getattr(item, "id", None)
    name = f"sequence {number}" if identifier is None else f"sequence {number} ({identifier!r})"
    letters = getattr(item, "sequence", getattr(item, "seq", item))
    if not _is_text(letters):
        raise SequenceError(name, f"it is of type {type(letters).__name__}", _EXPECTED)
    sequence = clean_sequence(str(letters).replace("<mask>", MASK_LETTER)).replace("J", "X")
    if not sequence:
        raise SequenceError(name, "it is empty", "leave it out")
    for position, letter in enumerate(sequence, start=1):
        if letter not in RESIDUES and letter != MASK_LETTER:
            advice = f"remove the gaps of an alignment: {_LETTERS}" if letter == "-" else _LETTERS
            raise SequenceError(name, f"{letter!r} at position {position} is not an amino acid", advice)
    residues = slice(None) if region is None else region.within(len(sequence))
    if residues is None:
        found = f"it has {len(sequence):,} residues, but the model uses residues {region} of each protein"
        raise SequenceError(name, found, "give whole proteins")
    return Protein(str(identifier or number), sequence[residues])
