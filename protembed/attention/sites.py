"""Annotated sites: their residues, and which heads attend to them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.attention.significance import (
    SIGNIFICANT,
    HeadTest,
    LabelledScores,
    MovedSegments,
    permutation_test,
)
from protembed.data.fasta import Record
from protembed.errors import TableError
from protembed.io.reading import display_name, open_input
from protembed.io.tables import Row, normalize_name, reading_table
from protembed.io.text import pluralize

_COLUMNS = ("protein", "position", "label")
# Up to nine digits: longer than any protein, and shorter than what Python refuses to convert.
_POSITION = re.compile("[1-9][0-9]{0,8}")


# What pandas and spreadsheets write for a missing cell. `NA` is sodium too, and may be bound.
_MISSING = ("nan", "NaN", "<NA>", "None", "null", "NULL", "N/A", "#N/A")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One residue and what is known of it.

    Attributes:
        protein: The identifier of its record, or the accession or the entry name in a UniProt header.
        position: in the protein, from 1.
        label: what it is, such as `binding` or `helix`.
        line: in the file, from 1.
    """

    protein: str
    position: int
    label: str
    line: int


def read_sites(path: Path) -> list[Site]:
    """Read a table of sites, plain or compressed.

    Whether the proteins exist and are long enough is for the caller to say, who knows them.

    Args:
        path: TSV or CSV with a header that names `protein`, `position` (from 1) and `label`, in any order and among
            others; `-` is stdin.

    Returns:
        The sites, in the table's order; one that is there twice is given twice.

    Raises:
        InputNotFoundError: the file cannot be opened.
        FormatError: the archive is damaged.
        TableError: a column or a value is missing or makes no sense.
    """
    name = display_name(path)
    with open_input(path) as stream:
        with reading_table(stream, name) as table:
            places = _find_columns(table.header, name)
            sites = [_read_site(row, places, name) for row in table.rows]
    if not sites:
        raise TableError(name, "the table has no rows", "give at least one site")
    return sites


def _find_columns(header: Sequence[str], name: str) -> dict[str, int]:
    """Find the place of each column."""
    columns = [normalize_name(column) for column in header]
    for column in _COLUMNS:
        if columns.count(column) != 1:
            found = f"the header has {columns.count(column) or 'no'} columns named {column!r}"
            raise TableError(name, found, f"begin the table with the names {', '.join(_COLUMNS)}", line=1)
    return {column: columns.index(column) for column in _COLUMNS}


def _read_site(row: Row, places: Mapping[str, int], name: str) -> Site:
    cells = {column: row.cells[place] for column, place in places.items()}
    for column, cell in cells.items():
        if not cell or cell in _MISSING:
            raise TableError(name, f"this row has no {column}", "complete or remove it", line=row.line)
    position = cells["position"]
    if not _POSITION.fullmatch(position):
        advice = "write whole numbers, and count residues from 1"
        raise TableError(name, f"the position {position[:20]!r} is no residue's number", advice, line=row.line)
    return Site(protein=cells["protein"], position=int(position), label=cells["label"], line=row.line)


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

    significance: HeadTest
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

    def values(self) -> LabelledScores:
        strata = residue_strata(self.sequence)
        return LabelledScores(values=self.received, is_marked=self.is_marked, strata=strata, moved=self.moved)


class SiteTests:
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
            segments = pluralize(result.num_segments, "segment")
            warnings.append(f"the result of {label!r} rests on one protein, on residues in {segments} of it")
    return warnings


def _names(identifier: str) -> tuple[str, ...]:
    """List what a protein may be called: its identifier and, of UniProt's headers, accession and entry name."""
    database, *names = identifier.split("|")
    return (identifier, *names) if database in _DATABASES and len(names) == 2 else (identifier,)
