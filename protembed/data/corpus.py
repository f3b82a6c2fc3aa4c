"""The memory-mapped tokens of a pretraining corpus, built once from FASTA files.

A corpus is a directory: `tokens.npy` (residues,) uint8, all proteins one after the other without special tokens;
`offsets.npy` (proteins + 1,) int64; `corpus.json` with counts, composition and a fingerprint of the tokens.
"""

import hashlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import decode, encode
from protembed.files import ArrayStream, array_file, atomic_directory, read_json, write_json

_TOKENS, _OFFSETS, _FACTS = "tokens.npy", "offsets.npy", "corpus.json"


class Corpus:
    """Proteins as token ids, read from disk as they are needed.

    Args:
        directory: what `build_corpus` made.
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

    def add(self, sequence: str) -> None:
        """Append one protein, given as residues of the alphabet."""
        tokens = encode(sequence)
        self._tokens.append(tokens)
        self._digest.update(tokens.data)
        self.offsets.append(self.offsets[-1] + len(tokens))

    def facts(self) -> dict[str, Any]:
        """Count what was added, and fingerprint it."""
        self._digest.update(self.offsets)
        return {
            "num_proteins": len(self.offsets) - 1,
            "num_residues": self.offsets[-1],
            "fingerprint": self._digest.hexdigest(),
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
