"""Clusters of proteins, read from a table, or as MMseqs2 and CD-HIT write them."""

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protembed.data.hashing import hash_texts, sequence_sha256
from protembed.errors import ConfigError, TableError
from protembed.io.reading import display_name, open_input
from protembed.io.tables import Table, column_names, find_column, is_stand_in, normalize_name, reading_table

# Hashes of identifiers and of the names of clusters.
Keys: TypeAlias = NDArray[np.uint64]

_CLUSTER_COLUMNS = ("cluster50", "cluster", "cluster_id", "representative", "centroid")
_IDENTIFIER_COLUMNS = (
    *("accession", "id", "identifier", "protein_id", "entry", "uniprot_id", "uniprot", "member", "entry_name"),
    *("name", "protein", "protein_name", "seq_id", "sequence_id", "sequence_name"),
)
_CLUSTERS_ADVICE = "give a table of these proteins, with their identifiers in a column named 'accession' or 'id'"
_CDHIT_START = ">Cluster "
# As in `0	120aa, >P1... *`, of the representative, or `1	118aa, >P2... at 95.76%`.
_CDHIT_MEMBER = re.compile(r"\d+\s+\d+(?:aa|nt), >(\S+?)\.\.\.\s")
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
    """Yield the representative and the member of each row of MMseqs2's table, each by the first word of its header.

    What follows in a table of alignments, such as their scores, is not read.
    """
    for cells in chain([table.header], (row.cells for row in table.rows)):
        yield [cell.partition(" ")[0] for cell in cells[:2]]


def _members_of_table(table: Table, columns: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """Yield the identifier and the cluster of each row, from these columns, or as in MMseqs2's table."""
    identifier, cluster = columns or (1, 0)
    for cells in (row.cells for row in table.rows) if columns else _cells_of_mmseqs(table):
        yield cells[identifier], cells[cluster]


def _hash_members(members: Iterable[tuple[str, str]]) -> tuple[Keys, Keys]:
    """Hash identifiers and clusters, (members,) each, in their order; without those that are in no cluster."""
    ids, keys = array("Q"), array("Q")
    for identifier, cluster in members:
        if _is_cluster(cluster):
            # Not `hash`, which differs between processes: so would the order of clusters.
            ids.frombytes(sequence_sha256(identifier)[:8])
            keys.frombytes(sequence_sha256(cluster)[:8])
    return np.frombuffer(ids, np.uint64), np.frombuffer(keys, np.uint64)


def _read_table(stream: BinaryIO, path: str, column: str | None) -> tuple[Keys, Keys]:
    """Hash a table's identifiers and clusters, (rows,) each."""
    known = (column, *_CLUSTER_COLUMNS, *_IDENTIFIER_COLUMNS)
    with reading_table(stream, path, known=known) as table:
        columns = _find_columns(table, path, column)
        ids, keys = _hash_members(_members_of_table(table, columns))
    starts_like_mmseqs = len(ids) > 0 and ids[0] == keys[0]
    if columns is None and not starts_like_mmseqs and not _clusters_contain_representatives(ids, keys):
        raise _missing_column(table, path, column)
    return ids, keys


def _members_of_cdhit(stream: BinaryIO, path: str) -> Iterator[tuple[str, str]]:
    """Yield the identifier and the cluster of each member in a .clstr file of CD-HIT."""
    cluster = ""
    for number, raw in enumerate(stream, start=1):
        line = raw.decode(errors="backslashreplace")
        if line.startswith(_CDHIT_START):
            cluster = line.strip()
        elif match := _CDHIT_MEMBER.match(line):
            yield match[1], cluster
        elif line.strip():
            found = f"{line.strip()[:40]!r} is not a member of a cluster"
            raise TableError(path, found, "give the .clstr file as CD-HIT wrote it", line=number)


def _read_cdhit(stream: BinaryIO, path: str, column: str | None) -> tuple[Keys, Keys]:
    """Hash the identifiers and clusters in a .clstr file of CD-HIT, (members,) each."""
    if column is not None:
        raise ConfigError("cluster_column", column, f"{path} is a file of CD-HIT, which has no columns")
    ids, keys = _hash_members(_members_of_cdhit(stream, path))
    if len(np.unique(ids)) < len(ids):
        problem = "identifiers recur in this file, perhaps because CD-HIT shortened them"
        raise TableError(path, problem, "run CD-HIT with -d 0, which writes whole identifiers")
    return ids, keys


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
            and further columns if it is one of alignments. Or the .clstr file of CD-HIT. The first row of an identifier
            counts. Rows whose cluster is empty or denotes no cluster, such as `nan` or `-1`, are ignored.
        column: Name of the column of clusters; None for a usual one, such as `cluster50` or `cluster`.

    Raises:
        InputNotFoundError: If the table cannot be opened.
        TableError: If it has no such column, a row is too short, or the columns are swapped.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self._path = display_name(path)
        with open_input(path) as stream:
            head: bytes = stream.peek(len(_CDHIT_START))  # type: ignore[attr-defined]  # every stream of open_input can
            read = _read_cdhit if head.startswith(_CDHIT_START.encode()) else _read_table
            ids, keys = read(stream, self._path, column)
        order = np.argsort(ids, kind="stable")
        self._ids, self._keys = ids[order], keys[order]
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

    def warnings(self, noun: str = "training proteins", advice: str = _CLUSTERS_ADVICE) -> list[str]:
        """Warn about records that were looked up and are not in the table.

        Args:
            noun: What messages call the records.
            advice: What to do if none of them is in the table.

        Raises:
            TableError: If none of the records is in the table.
        """
        if self._num_looked_up and self._num_unmatched == self._num_looked_up:
            problem = f"none of the {self._num_looked_up} {noun} is in this table; "
            problem += f"the first is {self._first_unmatched!r}"
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
