"""The residues of the input of a result, which its files do not hold."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import NONSTANDARD_RESIDUES
from protembed.data.fasta import ReadStatistics
from protembed.embedding.selection import Selection
from protembed.embedding.stored_proteins import StoredProteins


@dataclass(frozen=True, kw_only=True)
class InputResidues:
    """The residues of the input of a result: those that are none of the 20 amino acids, and a sample.

    Attributes:
        letters: Letters that were counted.
        counts: Occurrences of each of these letters that occurs.
        num_nonstandard: Such residues of each protein, (proteins,), int64.
        sampled: Amino acid of each sampled vector of a residue, also of those that are not finite; None if the input is
            not known, or there is one vector per protein.
    """

    letters: str
    counts: Counter[str]
    num_nonstandard: NDArray[np.int64]
    sampled: NDArray[np.str_] | None = None

    @classmethod
    def read(cls, selection: Selection, paths: Sequence[Path], sample: NDArray[np.int64] | None) -> "InputResidues":
        """Count the letters of the proteins that were embedded, and look the sampled ones up.

        Args:
            selection: Which proteins of the input were embedded.
            paths: Paths of the FASTA files.
            sample: Indices of sampled residues among those of all proteins, ascending, (sampled,); None for no sample.
        """
        counts, of_each, letters, num_before = Counter[str](), array("q"), list[str](), 0
        sample = np.zeros(0, np.int64) if (is_per_protein := sample is None) else sample
        for record in selection.read(paths, ReadStatistics()):
            found = {letter: record.sequence.count(letter) for letter in NONSTANDARD_RESIDUES}
            counts.update(found)
            of_each.append(sum(found.values()))
            num_after = num_before + len(record.sequence)
            first, last = np.searchsorted(sample, (num_before, num_after))
            letters += [record.sequence[index - num_before] for index in sample[first:last].tolist()]
            num_before = num_after
        return cls(
            letters=NONSTANDARD_RESIDUES,
            counts=+counts,
            num_nonstandard=np.array(of_each, np.int64),
            sampled=None if is_per_protein else np.array(letters, np.str_),
        )

    @classmethod
    def from_table(cls, proteins: StoredProteins) -> "InputResidues":
        """Use the counts of X in the table of identifiers, which counts no other letter; the input is not needed."""
        counts = Counter(X=int(proteins.num_unknown.sum()))
        return cls(letters="X", counts=+counts, num_nonstandard=proteins.num_unknown)
