"""Annotated residues: which proteins have which, and which heads attend to them.

A site's residues are compared with other residues of the same amino acid in the same protein, because heads attend to
amino acids: over random sets of aspartate and glutamate that bind nothing, a comparison with all residues finds a dozen
heads. The first and the last residues of a chain are compared among themselves, because heads attend to its ends.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.analysis.moved_marks import MovedSegments
from protembed.analysis.significance import SIGNIFICANT, HeadSignificance, MarkedValues, permutation_test
from protembed.data.annotations import Site
from protembed.data.fasta import Record
from protembed.errors import TableError
from protembed.io.text import count

_ADVICE = (
    "name proteins by the first word of their FASTA headers, or by its accession, as P00698 of sp|P00698|LYSC_CHICK"
)
# Residues at either end of a chain that are compared among themselves. Without it, a label on the first twelve residues
# of six unrelated proteins "is attended to" by 22 of 120 heads, and with it by none.
_TERMINAL_RESIDUES = 10
# Labelled residues at most so far apart move along the chain together; see `MovedSegments`.
_MAX_GAP = 10
_DATABASES = ("sp", "tr")


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """Which heads attend to the residues of one label, and on what that rests.

    Attributes:
        significance: The test of each head.
        num_residues: Labelled residues of all proteins; copies of a protein count once.
        num_segments: Groups of labelled residues that are at most 10 residues apart.
    """

    significance: HeadSignificance
    num_residues: int
    num_segments: int

    @property
    def num_following(self) -> int:
        """The number of heads that attend to the residues with a q of at most 0.05."""
        return int((self.significance.q_values <= SIGNIFICANT).sum())


@dataclass(frozen=True, kw_only=True)
class _Marked:
    """One protein with residues of a label.

    Attributes:
        received: The attention that each residue receives, (heads, residues).
        is_marked: The labelled residues, (residues,).
        sequence: The protein.
    """

    received: NDArray[np.float32]
    is_marked: NDArray[np.bool_]
    sequence: str

    @property
    def moved(self) -> MovedSegments:
        return MovedSegments(self.is_marked, _MAX_GAP)

    def values(self) -> MarkedValues:
        strata = residue_strata(self.sequence)
        return MarkedValues(values=self.received, is_marked=self.is_marked, strata=strata, moved=self.moved)


class SiteMarks:
    """What is annotated in the proteins, and how much attention their residues receive.

    Args:
        sites: The annotations.
        path: The name of their file, for messages.
    """

    def __init__(self, sites: Sequence[Site], path: str) -> None:
        self._path, self._sites = path, sites
        self._of_protein = defaultdict[str, list[Site]](list)
        for site in sites:
            self._of_protein[site.protein].append(site)
        self._found: set[str] = set()
        self._marked = defaultdict[str, dict[tuple[str | int, ...], _Marked]](dict)

    def find(self, record: Record) -> bool:
        """Look up the sites of a protein, before anything is computed.

        Raises:
            TableError: A site lies beyond the protein.
        """
        sites = self._sites_of(record)
        for site in sites:
            self._found.add(site.protein)
            if site.position > len(record.sequence):
                found = f"position {site.position} of {record.id!r}, which has {len(record.sequence):,} residues"
                raise TableError(self._path, found, "correct the position, or remove the row", line=site.line)
        return bool(sites)

    def check_found(self) -> list[str]:
        """Return a warning if some of the sites belong to no protein that was looked up.

        Raises:
            TableError: None belongs to any.
        """
        unknown = [site for site in self._sites if site.protein not in self._found]
        if not unknown:
            return []
        first = unknown[0]
        if len(unknown) == len(self._sites):
            found = (
                f"none of the {len(unknown):,} sites names a protein of the input, the first names {first.protein!r}"
            )
            raise TableError(self._path, found, _ADVICE, line=first.line)
        which = f"the first {first.protein!r} in line {first.line}"
        return [f"{self._path}: {len(unknown):,} of {len(self._sites):,} sites name no protein of the input, {which}"]

    def labelled(self, record: Record) -> dict[str, list[int]]:
        """List the labelled residues of a protein, from 0 and rising, by label."""
        labelled: dict[str, set[int]] = {}
        for site in self._sites_of(record):
            labelled.setdefault(site.label, set()).add(site.position - 1)
        return {label: sorted(places) for label, places in sorted(labelled.items())}

    def take(self, record: Record, received: NDArray[np.float32]) -> None:
        """Take in the attention that a protein's residues receive, (heads, residues); a copy adds nothing."""
        for label, places in self.labelled(record).items():
            is_marked = np.zeros(len(record.sequence), np.bool_)
            is_marked[places] = True
            marked = _Marked(received=received, is_marked=is_marked, sequence=record.sequence)
            self._marked[label].setdefault((record.sequence, *places), marked)

    def weigh(self, *, num_permutations: int, seed: int) -> dict[str, SiteResult]:
        """Test, for each label, which heads attend to its residues more than to others of the same amino acid.

        Args:
            num_permutations: The permutations of each test.
            seed: The seed of the permutations.
        """
        return {
            label: SiteResult(
                significance=permutation_test(
                    (marked.values() for marked in proteins.values()), num_permutations=num_permutations, seed=seed
                ),
                num_residues=sum(int(marked.is_marked.sum()) for marked in proteins.values()),
                num_segments=sum(marked.moved.num_segments for marked in proteins.values()),
            )
            for label, proteins in sorted(self._marked.items())
        }

    def _sites_of(self, record: Record) -> list[Site]:
        return [site for name in _names(record.id) for site in self._of_protein.get(name, ())]


def residue_strata(sequence: str) -> NDArray[np.int64]:
    """Number the strata within which residues are compared: their amino acid, and whether they are at an end.

    >>> residue_strata("MKM" + 20 * "A" + "M")[[0, 2, 12, 23]].tolist()
    [232, 232, 195, 233]
    """
    letters = np.frombuffer(sequence.encode("ascii"), np.uint8).astype(np.int64)
    places = np.arange(len(sequence))
    is_last = places >= len(sequence) - _TERMINAL_RESIDUES
    return 3 * letters + np.where(places < _TERMINAL_RESIDUES, 1, 2 * is_last)


def site_warnings(results: Iterable[tuple[str, SiteResult]]) -> list[str]:
    """Say of which labels nothing, or little, can be known."""
    warnings = []
    for label, result in results:
        found = result.significance
        if not found.num_marks:
            reason = "no other residue of the same amino acid is there to compare with"
            warnings.append(f"nothing is known of {label!r}, because {reason}")
        elif found.num_proteins == 1:
            segments = count(result.num_segments, "segment")
            warnings.append(f"the result of {label!r} rests on one protein, on residues in {segments} of it")
    return warnings


def _names(identifier: str) -> tuple[str, ...]:
    """List what a protein may be called: its identifier and, of UniProt's headers, accession and entry name."""
    database, *names = identifier.split("|")
    return (identifier, *names) if database in _DATABASES and len(names) == 2 else (identifier,)
