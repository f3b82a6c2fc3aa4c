"""The memory-mapped tokens of a pretraining corpus, built once from FASTA files.

A corpus is a directory: `tokens.npy` (residues,) uint8, all proteins one after the other without special tokens;
`offsets.npy` (proteins + 1,) int64; `corpus.json` with counts and a fingerprint of the tokens.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import decode, encode
from protembed.data.arrays import ArrayStream, array_file
from protembed.data.fasta import OnIllegal, ReadReport, read_fasta
from protembed.data.splits import hash_share
from protembed.errors import DamagedRunError, NothingToLearnError
from protembed.files import atomic_directory, read_json, write_json

HELD_OUT_SHARE = 0.05

_TOKENS, _OFFSETS, _FACTS = "tokens.npy", "offsets.npy", "corpus.json"


class Corpus:
    """Proteins as token ids, read from disk as they are needed.

    Args:
        directory: what `corpus_writer` made.
    """

    def __init__(self, directory: Path) -> None:
        self._tokens: NDArray[np.uint8] = np.load(directory / _TOKENS, mmap_mode="r")
        self._offsets: NDArray[np.int64] = np.load(directory / _OFFSETS)
        self.facts: dict[str, Any] = read_json(directory / _FACTS)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return one protein, (residues,), uint8, without `<cls>` and `<eos>`."""
        return np.asarray(self._tokens[self._offsets[row] : self._offsets[row + 1]])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(proteins,), int64: residues of each protein."""
        return np.diff(self._offsets)

    @property
    def num_residues(self) -> int:
        """Residues of all proteins."""
        return len(self._tokens)

    @property
    def fingerprint(self) -> str:
        """The sha256 of all tokens and boundaries; equal corpora have equal fingerprints."""
        return str(self.facts["fingerprint"])

    def sequence(self, row: int) -> str:
        """Return one protein as letters."""
        return decode(self[row])


class CorpusWriter:
    """Appends proteins to a corpus that is being built; see `corpus_writer`."""

    def __init__(self, tokens: ArrayStream) -> None:
        self._tokens = tokens
        self._digest = hashlib.sha256()
        self.offsets = array("q", [0])

    @property
    def num_proteins(self) -> int:
        """Proteins so far."""
        return len(self.offsets) - 1

    def add(self, sequence: str) -> None:
        """Append one protein, given as residues of the alphabet."""
        tokens = encode(sequence)
        self._tokens.append(tokens)
        self._digest.update(tokens.data)
        self.offsets.append(self.offsets[-1] + len(tokens))

    def facts(self) -> dict[str, Any]:
        """Count what was added, and fingerprint it."""
        digest = self._digest.copy()
        digest.update(self.offsets)
        return {
            "num_proteins": self.num_proteins,
            "num_residues": self.offsets[-1],
            "fingerprint": digest.hexdigest(),
        }


@contextmanager
def corpus_writer(directory: Path) -> Iterator[CorpusWriter]:
    """Build a corpus directory; it appears under its name when the block ends well, and not at all otherwise.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_directory(directory) as temporary:
        with array_file(temporary / _TOKENS, (), np.uint8) as tokens:
            writer = CorpusWriter(tokens)
            yield writer
        with array_file(temporary / _OFFSETS, (), np.int64) as offsets:
            offsets.append(np.frombuffer(writer.offsets, dtype=np.int64))
        write_json(temporary / _FACTS, writer.facts())


@dataclass(frozen=True, kw_only=True)
class Corpora:
    """The proteins to train on, and one or more sets to validate on."""

    train: Corpus
    valid: Sequence[Corpus]


def open_corpora(directory: Path) -> Corpora:
    """Open what `build_corpora` made.

    Raises:
        DamagedRunError: it is not whole.
    """
    num_valid = len(list(directory.glob("valid-*")))
    try:
        valid = [Corpus(directory / f"valid-{number}") for number in range(1, num_valid + 1)]
        return Corpora(train=Corpus(directory / "train"), valid=valid)
    except (OSError, EOFError, ValueError) as error:
        raise DamagedRunError(directory, f"the stored proteins cannot be read ({error})") from error


def build_corpora(
    directory: Path, fasta: Sequence[Path], valid: Sequence[Path], *, on_illegal: OnIllegal = "error"
) -> list[str]:
    """Store training and validation proteins; without validation files a twentieth is held out by sequence hash.

    Args:
        directory: the final name; it appears there complete.
        fasta: the proteins to train on.
        valid: one file for each validation set.
        on_illegal: what to do about a letter that is no residue.

    Returns:
        Warnings about the input, in sentences.

    Raises:
        DataError: the input is not what it should be, or too small to hold proteins out.
        OutputError: the corpora cannot be written.
    """
    report, valid_report = ReadReport(), ReadReport()
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_directory(directory))
        train = stack.enter_context(corpus_writer(temporary / "train"))
        held_out = train if valid else stack.enter_context(corpus_writer(temporary / "valid-1"))
        for record in read_fasta(fasta, on_illegal=on_illegal, report=report):
            (held_out if hash_share(record.sequence) < HELD_OUT_SHARE else train).add(record.sequence)
        for number, path in enumerate(valid, start=1):
            writer = stack.enter_context(corpus_writer(temporary / f"valid-{number}"))
            for record in read_fasta([path], on_illegal=on_illegal, report=valid_report):
                writer.add(record.sequence)
        if not train.num_proteins or not held_out.num_proteins:
            raise NothingToLearnError(report.num_records)
    warnings = report.warnings() + [f"validation: {warning}" for warning in valid_report.warnings()]
    if not valid:
        warnings.append("validation proteins are held out by sequence hash; relatives of them may be in training")
    return warnings
