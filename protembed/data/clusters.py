"""Clusters of proteins, read from a table: those that MMseqs2 and other programs found."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protembed.data.hashing import hash_texts, sequence_sha256
from protembed.errors import TableError
from protembed.io.reading import display_name, open_input
from protembed.io.tables import Table, column_names, find_column, is_stand_in, normalize_name, reading_table

# Hashes of identifiers and of the names of clusters.
Keys: TypeAlias = NDArray[np.uint64]

_CLUSTER_COLUMNS = ("cluster50", "cluster", "cluster_id", "representative", "centroid")
_IDENTIFIER_COLUMNS = (
    *("accession", "id", "identifier", "protein_id", "entry", "uniprot_id", "uniprot", "member", "entry_name"),
    *("name", "protein", "protein_name", "seq_id", "sequence_id", "sequence_name"),
)
# The label of density-based clustering for points that are in no cluster.
_NOISE = "-1"


def parse_accession(record_id: str) -> str:
    """Extract the accession from an identifier such as `xx|ACCESSION|NAME`; any other is returned unchanged.

    >>> parse_accession("sp|P69905|HBA_HUMAN"), parse_accession("P69905")
    ('P69905', 'P69905')
    """
    parts = record_id.split("|")
    return parts[1] if len(parts) == 3 else record_id


def _is_cluster(name: str) -> bool:
    """Return whether a cell names a cluster, rather than denoting that there is none."""
    return bool(name) and name != _NOISE and (name == "X" or not is_stand_in(name))


def _clusters_contain_representatives(ids: Keys, keys: Keys) -> bool:
    """Return whether there are clusters, and each has a member of the cluster's name."""
    return len(ids) > 0 and len(np.unique(ids[ids == keys])) == len(np.unique(keys))


def _missing_column(table: Table, path: str, column: str | None) -> TableError:
    header = table.header
    found = f"no column {column!r}" if column else "no column of clusters"
    advice = "give a TSV with a header and name its column with `cluster_column`, or the table that MMseqs2 writes"
    if len(header) == 2 and header[1].isdigit():  # the key of a member in the database
        advice = "if MMseqs2 wrote it, give the sequence database twice to createtsv, so that members have identifiers"
    return TableError(path, f"{found} among {column_names(header)}", advice, line=table.line)


def _find_columns(table: Table, path: str, column: str | None) -> tuple[int, int] | None:
    """Find the columns of identifiers and clusters; None if the table may be that of MMseqs2, without a header."""
    header, line = table.header, table.line
    usual = _CLUSTER_COLUMNS if column is None else [column]
    cluster = (
        header.index(column) if header.count(column) == 1 else find_column(header, path, "cluster", usual, line=line)
    )
    if cluster is None:
        names = {normalize_name(name) for name in header}
        if len(header) < 2 or not names.isdisjoint(map(normalize_name, _IDENTIFIER_COLUMNS)):
            raise _missing_column(table, path, column)
        return None
    if len(header) < 2:
        raise TableError(path, "there is no column of identifiers", "name it accession or id", line=line)
    identifier = find_column(header, path, "identifier", _IDENTIFIER_COLUMNS, taken=[header[cluster]], line=line)
    return int(cluster == 0) if identifier is None else identifier, cluster


def _cells_of_mmseqs(table: Table) -> Iterator[Sequence[str]]:
    """Yield the representative and the member of each row of MMseqs2's table, of whose full headers the first words.

    What follows in a table of alignments, such as their scores, is not read.
    """
    for cells in chain([table.header], (row.cells for row in table.rows)):
        yield [cell.partition(" ")[0] for cell in cells[:2]]


def _read_table(stream: BinaryIO, path: str, column: str | None) -> tuple[Keys, Keys]:
    """Hash a table's identifiers and clusters, (rows,) each, sorted by the hashes of the identifiers."""
    ids, keys = array("Q"), array("Q")
    known = (column, *_CLUSTER_COLUMNS, *_IDENTIFIER_COLUMNS)
    with reading_table(stream, path, known=known) as table:
        columns = _find_columns(table, path, column)
        identifier, cluster = columns or (1, 0)
        for cells in (row.cells for row in table.rows) if columns else _cells_of_mmseqs(table):
            if _is_cluster(cells[cluster]):
                # Not `hash`, which differs between processes: so would the order of clusters.
                ids.frombytes(sequence_sha256(cells[identifier])[:8])
                keys.frombytes(sequence_sha256(cells[cluster])[:8])
    all_ids, all_keys = (np.frombuffer(hashes, np.uint64) for hashes in (ids, keys))
    starts_like_mmseqs = len(all_ids) > 0 and all_ids[0] == all_keys[0]
    if columns is None and not starts_like_mmseqs and not _clusters_contain_representatives(all_ids, all_keys):
        raise _missing_column(table, path, column)
    order = np.argsort(all_ids, kind="stable")
    return all_ids[order], all_keys[order]


def _check_column_order(ids: Keys, keys: Keys, path: str) -> None:
    """Raise an error if identifiers, which are sorted, recur in a table and clusters do not."""
    if np.any(ids[1:] == ids[:-1]) and len(np.unique(keys)) == len(keys):
        problem = "identifiers recur in this table, and clusters do not: the two columns seem to be swapped"
        advice = "name the columns in a header (accession, `cluster_column`); MMseqs2 writes the representative first"
        raise TableError(path, problem, advice)


class ClusterTable:
    """The cluster of each identifier of a table, as 64-bit hashes: 16 bytes of memory a row, 40 while they are sorted.

    The probability that two of 200 million identifiers share a hash is 0.1 %; one protein is in a wrong cluster then.

    Args:
        path: A TSV or CSV with a header line, plain or compressed; `-` is stdin. Identifiers are in the column
            `accession`, `id` or of another usual name, else in the first one that is not `column`. Or MMseqs2's table
            without a header: a representative and a member in each line, each representative also a member of itself,
            and further columns if it is one of alignments. The first row of an identifier counts. Rows whose cluster is
            empty or denotes no cluster, such as `nan` or `-1`, are ignored.
        column: Name of the column of clusters; None for a usual one, such as `cluster50` or `cluster`.

    Raises:
        InputNotFoundError: If the table cannot be opened.
        TableError: If it has no such column, a row is too short, or the columns are swapped.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self._path = display_name(path)
        with open_input(path) as stream:
            self._ids, self._keys = _read_table(stream, self._path, column)
        _check_column_order(self._ids, self._keys, self._path)
        self._num_looked_up = self._num_unmatched = 0
        self._first_unmatched = ""

    def look_up(self, ids: Sequence[str], unmatched: Keys) -> Keys:
        """Look up the clusters of records.

        A record is looked up by its identifier, then by the accession in an identifier such as `xx|ACCESSION|NAME`.

        Args:
            ids: Identifiers of the records.
            unmatched: Key of each record for the case that it is not in the table, which makes it a separate
                cluster, (records,), uint64.

        Returns:
            Key of each record's cluster, (records,), uint64.
        """
        keys, is_matched = self._match(hash_texts(ids))
        keys = np.where(is_matched, keys, unmatched)
        rest = np.flatnonzero(~is_matched)
        rest_keys, is_matched = self._match(hash_texts(parse_accession(ids[index]) for index in rest.tolist()))
        keys[rest[is_matched]] = rest_keys[is_matched]
        missing = rest[~is_matched]
        if len(missing) and not self._num_unmatched:
            self._first_unmatched = ids[int(missing[0])]
        self._num_looked_up += len(ids)
        self._num_unmatched += len(missing)
        return keys

    def warnings(self, noun: str = "training proteins") -> list[str]:
        """Warn about records that were looked up and are not in the table; `noun` is what messages call them.

        Raises:
            TableError: If none of the records is in the table.
        """
        if self._num_looked_up and self._num_unmatched == self._num_looked_up:
            problem = f"none of the {self._num_looked_up} {noun} is in this table; "
            problem += f"the first is {self._first_unmatched!r}"
            advice = "give a table of these proteins, with their identifiers in a column named 'accession' or 'id'"
            raise TableError(self._path, problem, advice)
        if not self._num_unmatched:
            return []
        return [
            f"{self._num_unmatched} of {self._num_looked_up} {noun} have no cluster in {self._path}; each becomes a "
            f"separate cluster (the first: {self._first_unmatched!r})"
        ]

    def _match(self, ids: Keys) -> tuple[Keys, NDArray[np.bool_]]:
        """Return a key for each hashed identifier, and whether it is in the table at all."""
        if not len(self._ids):
            return ids, np.zeros(len(ids), np.bool_)
        indices = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._keys[indices], self._ids[indices] == ids
