"""Annotated residues: which proteins have which, and which heads attend to them."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protembed.analysis.significance import HeadSignificance, MarkedValues, permutation_test
from protembed.data.annotations import Site
from protembed.data.fasta import Record
from protembed.errors import TableError

_ADVICE = "name proteins by the first word of their FASTA headers"


class SiteMarks:
    """What is annotated in the proteins, and how much attention their residues receive.

    Args:
        sites: the annotations.
        path: of their file, for messages.
    """

    def __init__(self, sites: Sequence[Site], path: str) -> None:
        self._path = path
        self._sites = defaultdict[str, list[Site]](list)
        for site in sites:
            self._sites[site.protein].append(site)
        self._met: set[str] = set()
        self._received = defaultdict[str, list[NDArray[np.float32]]](list)
        self._marks = defaultdict[str, list[NDArray[np.bool_]]](list)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._sites

    def take(self, record: Record, received: NDArray[np.float32]) -> None:
        """Take in the attention that a protein's residues receive, (heads, residues).

        Raises:
            TableError: a site lies beyond the protein.
        """
        num_residues = len(record.sequence)
        self._met.add(record.id)
        marks: dict[str, NDArray[np.bool_]] = {}
        for site in self._sites[record.id]:
            if site.position > num_residues:
                found = f"position {site.position} of {record.id!r}, which has {num_residues} residues"
                raise TableError(self._path, found, "correct it", line=site.line)
            marks.setdefault(site.label, np.zeros(num_residues, np.bool_))[site.position - 1] = True
        for label, marked in marks.items():
            self._received[label].append(received)
            self._marks[label].append(marked)

    def warnings(self) -> list[str]:
        """Say which sites name no protein that was met."""
        strange = [site for name, sites in self._sites.items() if name not in self._met for site in sites]
        if not strange:
            return []
        first, total = strange[0], sum(map(len, self._sites.values()))
        which = f"the first {first.protein!r} in line {first.line}"
        return [f"{len(strange)} of {total} sites name no protein of the input, {which}"]

    def weigh(self, *, num_permutations: int, seed: int) -> dict[str, HeadSignificance]:
        """Test, for each label, which heads attend to its residues more than to others of the same proteins.

        Args:
            num_permutations: of each test.
            seed: of the permutations.

        Raises:
            TableError: no protein was met that is annotated.
        """
        if not self._marks:
            raise TableError(self._path, "it annotates no protein of the input", _ADVICE)
        return {
            label: permutation_test(
                (
                    MarkedValues(values=received, is_marked=marked, strata=np.zeros(len(marked), np.int64))
                    for received, marked in zip(self._received[label], self._marks[label], strict=True)
                ),
                num_permutations=num_permutations,
                seed=seed,
            )
            for label in sorted(self._marks)
        }
