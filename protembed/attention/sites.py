"""Annotated sites: reading their table, and testing which heads attend to them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.attention.significance import (
    SIGNIFICANT,
    HeadTest,
    LabelledScores,
    MovedSegments,
    label_segments,
    permutation_test,
    permutation_warnings,
)
from protembed.data.alphabet import residue_letter
from protembed.data.fasta import Record
from protembed.errors import TableError
from protembed.io.faults import Faults
from protembed.io.reading import display_name, open_input
from protembed.io.tables import (
    IDENTIFIER_COLUMNS,
    Row,
    column_names,
    describe_traits,
    find_columns,
    is_spreadsheet_error,
    reading_table,
)
from protembed.text import pluralize

# Usual names of the columns, the likeliest first.
_COLUMNS: Mapping[str, Sequence[str]] = {
    "protein": ("protein", *(name for name in IDENTIFIER_COLUMNS if name != "protein")),
    "position": ("position", "pos", "residue_number", "resnum", "resi", "resid", "aa_position", "residue", "site"),
    "label": ("label", "annotation", "feature", "site_type", "type", "description", "class", "category"),
}
_DATABASES = ("sp", "tr")
_NAME_ADVICE = (
    "name proteins by the first word of their FASTA headers, or by its accession, as P00698 of sp|P00698|LYSC_CHICK"
)
# This many residues at either end of a chain are compared with one another only. Otherwise 22 of 120 heads would
# "attend" to a label on the first twelve residues of six unrelated proteins; with these strata none does.
_TERMINAL_RESIDUES = 10
# Labelled residues at most this far apart move along the chain together, as in `MovedSegments`.
_MAX_GAP = 10
# Perhaps with the residue, as in H57 or His57, and with zero decimals, as pandas writes whole numbers beside missing
# ones. Up to nine digits are more than any protein needs, and fewer than Python refuses to convert.
_POSITION = re.compile(r"([A-Za-z]|[A-Za-z]{3})?([1-9][0-9]{0,8})(?:\.0+)?")
_SEVERAL_POSITIONS = re.compile(r"\w+(?:\s*(?:[,;/\u2013\u2212-]|\.\.)\s*\w+|\s+\w+)+")
# Missing cells as pandas and spreadsheets write them. `NA` is not among them, because it may be a sodium ion.
_MISSING_VALUES = ("nan", "NaN", "<NA>", "None", "null", "NULL", "N/A")


@dataclass(frozen=True, kw_only=True)
class Site:
    """An annotated residue.

    Attributes:
        protein: Identifier of the protein's record, or the accession or entry name in its UniProt header.
        position: Position in the protein, from 1.
        label: Annotation, such as `binding` or `helix`.
        line: Line in the file, from 1.
        residue: Letter of the residue if the table names it, as in `H57`; else None.
    """

    protein: str
    position: int
    label: str
    line: int
    residue: str | None = None


@dataclass(frozen=True, kw_only=True)
class SiteTable:
    """A table of sites as it was read.

    Attributes:
        path: Name of the file, for messages.
        sites: Sites in the table's order; duplicates are kept.
        notes: What was understood of an unusual table, in sentences.
    """

    path: str
    sites: Sequence[Site]
    notes: Sequence[str] = ()


def read_sites(path: Path) -> SiteTable:
    """Read a table of sites, plain or compressed.

    The function does not check whether the proteins exist and are long enough.

    Args:
        path: Table with the columns `protein`, `position` (from 1) and `label`, or other usual names of them, in any
            order and among others; `-` is stdin.

    Raises:
        InputNotFoundError: The file cannot be opened.
        FormatError: The archive is damaged.
        TableError: A column or a value is missing or invalid.
    """
    name = display_name(path)
    sites = list[Site]()
    with (
        Faults() as faults,
        open_input(path) as stream,
        reading_table(stream, name, known=chain(*_COLUMNS.values()), faults=faults) as table,
    ):
        indices = find_columns(table.header, name, _COLUMNS, line=table.line)
        if missing := [column for column in _COLUMNS if column not in indices]:
            found = f"no column {missing[0]!r} among {column_names(table.header)}"
            raise TableError(name, found, f"begin the table with the names {', '.join(_COLUMNS)}", line=table.line)
        for row in table.rows:
            with faults.collecting():
                sites.append(_read_site(row, indices, name))
    if not sites:
        raise TableError(name, "the table has no rows", "give at least one site")
    return SiteTable(path=name, sites=sites, notes=describe_traits(table.traits))


def _read_site(row: Row, indices: Mapping[str, int], name: str) -> Site:
    cells = {column: row.cells[index] for column, index in indices.items()}
    for column, cell in cells.items():
        if not cell or cell in _MISSING_VALUES or is_spreadsheet_error(cell):
            raise TableError(name, f"this row has no {column}", "complete or remove it", line=row.line)
    residue, position = _read_position(cells["position"], row, name)
    return Site(protein=cells["protein"], position=position, label=cells["label"], line=row.line, residue=residue)


def _read_position(cell: str, row: Row, name: str) -> tuple[str | None, int]:
    """Read a position and the letter of its residue, which is None if the cell does not name it."""
    match = _POSITION.fullmatch(cell)
    residue = residue_letter(match[1]) if match and match[1] else None
    if match is None or (match[1] and residue is None):
        found, advice = f"the position {cell[:20]!r} is not a residue number", "count residues from 1"
        if _SEVERAL_POSITIONS.fullmatch(cell):
            found, advice = f"the cell {cell[:20]!r} seems to hold several positions", "write a row for each residue"
        raise TableError(name, found, advice, line=row.line)
    return residue, int(match[2])


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """The tests of all heads on the residues of one label, and the amount of data behind them.

    Attributes:
        num_residues: Number of labelled residues; copies of a protein count once.
        num_segments: Number of groups of labelled residues at most 10 residues apart.
    """

    significance: HeadTest
    num_residues: int
    num_segments: int

    @property
    def num_following(self) -> int:
        """Number of heads that attend significantly to the residues (q ≤ 0.05)."""
        return int((self.significance.q_values <= SIGNIFICANT).sum())


class SiteTests:
    """Collects the attention that annotated residues receive, and tests which heads attend to them.

    Args:
        table: Annotated residues of all proteins.

    Attributes:
        notes: What was understood of an unusual table, in sentences.
    """

    def __init__(self, table: SiteTable) -> None:
        self._path, self._sites, self.notes = table.path, table.sites, table.notes
        self._faults = Faults()
        self._by_protein = defaultdict[str, list[Site]](list)
        for site in table.sites:
            self._by_protein[site.protein].append(site)
        self._matched_names: set[str] = set()
        self._proteins = defaultdict[str, dict[tuple[str | int, ...], LabelledScores]](dict)  # by label

    def match(self, record: Record) -> bool:
        """Match a protein to the sites, and return whether it has any."""
        sites = self._sites_in(record)
        for site in sites:
            self._matched_names.add(site.protein)
            if found := _mismatch(site, record):
                advice = "correct the position, or remove the row"
                self._faults.add(TableError(self._path, found, advice, line=site.line))
        return bool(sites)

    def check_matched(self) -> list[str]:
        """Return a warning if some of the sites match no protein of the input.

        Raises:
            TableError: None of the sites matches, or some lie beyond their proteins.
        """
        self._faults.check()
        unknown = [site for site in self._sites if site.protein not in self._matched_names]
        if not unknown:
            return []
        first = unknown[0]
        if len(unknown) == len(self._sites):
            found = f"no site names a protein of the input; the first names {first.protein!r}"
            raise TableError(self._path, found, _NAME_ADVICE, line=first.line)
        which = f"the first is {first.protein!r} in line {first.line}"
        return [f"{self._path}: {len(unknown):,} of {len(self._sites):,} sites name no protein of the input; {which}"]

    def labelled(self, record: Record) -> dict[str, list[int]]:
        """List the labelled residues of a protein by label, from 0 in ascending order."""
        labelled: dict[str, set[int]] = {}
        for site in self._sites_in(record):
            labelled.setdefault(site.label, set()).add(site.position - 1)
        return {label: sorted(residues) for label, residues in sorted(labelled.items())}

    def add(self, record: Record, received: NDArray[np.float32]) -> None:
        """Add the attention that a protein's residues receive, (heads, residues), float32; copies are ignored."""
        strata = residue_strata(record.sequence)
        for label, residues in self.labelled(record).items():
            is_labelled = np.isin(np.arange(len(strata)), residues)
            moved = MovedSegments(label_segments(is_labelled, _MAX_GAP), len(strata))
            scores = LabelledScores(values=received, is_labelled=is_labelled, strata=strata, moved_sums=moved.sums)
            self._proteins[label].setdefault((record.sequence, *residues), scores)

    def evaluate(self, *, num_permutations: int, seed: int) -> dict[str, SiteResult]:
        """Test, for each label, which heads attend to its residues more than to others of the same amino acid."""
        return {
            label: SiteResult(
                significance=permutation_test(proteins.values(), num_permutations=num_permutations, seed=seed),
                num_residues=sum(int(protein.is_labelled.sum()) for protein in proteins.values()),
                num_segments=sum(len(label_segments(protein.is_labelled, _MAX_GAP)) for protein in proteins.values()),
            )
            for label, proteins in sorted(self._proteins.items())
        }

    def _sites_in(self, record: Record) -> list[Site]:
        return [site for name in _names(record.id) for site in self._by_protein.get(name, ())]


def _mismatch(site: Site, record: Record) -> str | None:
    """Describe why a protein cannot have a site; None if it can."""
    if site.position > len(record.sequence):
        return f"position {site.position} of {record.id!r}, which has {len(record.sequence):,} residues"
    letter = record.sequence[site.position - 1]
    if site.residue not in (None, letter):
        return (
            f"the table names {site.residue}{site.position}, and residue {site.position} of {record.id!r} is {letter}"
        )
    return None


def residue_strata(sequence: str) -> NDArray[np.int64]:
    """Number the strata within which residues are compared: by amino acid, and by chain start, middle or end.

    >>> residue_strata("MKM" + 20 * "A" + "M")[[0, 2, 12, 23]].tolist()
    [232, 232, 195, 233]
    """
    letters = np.frombuffer(sequence.encode("ascii"), np.uint8).astype(np.int64)
    positions = np.arange(len(sequence))
    is_last = positions >= len(sequence) - _TERMINAL_RESIDUES
    return 3 * letters + np.where(positions < _TERMINAL_RESIDUES, 1, 2 * is_last)


def site_warnings(results: Iterable[tuple[str, SiteResult]]) -> list[str]:
    """Warn of labels that allow no comparison, or one in a single protein only."""
    warnings = []
    for label, result in results:
        if not result.significance.num_labelled:
            reason = "the proteins have no unlabelled residues of the same amino acids"
            warnings.append(f"cannot test {label!r}, because {reason}")
        elif result.significance.num_proteins == 1:
            segments = pluralize(result.num_segments, "segment")
            warnings.append(f"the result of {label!r} rests on one protein, with labelled residues in {segments}")
        warnings += [f"{label!r}: {warning}" for warning in permutation_warnings(result.significance)]
    return warnings


def _names(identifier: str) -> tuple[str, ...]:
    """List the names of a protein: its identifier and, in UniProt's headers, accession and entry name."""
    database, *names = identifier.split("|")
    return (identifier, *names) if database in _DATABASES and len(names) == 2 else (identifier,)
