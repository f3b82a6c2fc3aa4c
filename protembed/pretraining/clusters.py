"""Which proteins belong together: read from a table, stored beside a corpus.

A stored grouping is two arrays: `members.npy` (proteins,) int64, the rows of the corpus cluster by cluster, and
`cluster_offsets.npy` (clusters + 1,) int64, where each cluster begins and the last one ends.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from protembed.data.sampling import Rows, TokenCounts, row_blocks
from protembed.errors import TableError
from protembed.io.arrays import array_file, open_array
from protembed.io.reading import display_name, open_input
from protembed.io.tables import column_names, find_column, is_stand_in, normalize_name, reading_table

Keys = NDArray[np.uint64]

DEFAULT_CLUSTER_COLUMN = "cluster50"

_MEMBERS, _OFFSETS = "members.npy", "cluster_offsets.npy"
_IDENTIFIER_COLUMNS = (
    *("accession", "id", "identifier", "protein_id", "entry", "uniprot_id", "uniprot", "member", "entry_name"),
    *("name", "protein", "protein_name", "seq_id", "sequence_id", "sequence_name"),
)
# What density-based clustering calls the points that are in no cluster.
_NOISE = "-1"


@dataclass(frozen=True, kw_only=True)
class ClusterSource:
    """Where the user keeps clusters.

    Attributes:
        path: a TSV or CSV with a header line, plain or compressed; `-` is stdin. Identifiers are in the column
            `accession`, `id` or of another usual name, else in the first one that is not `column`. Or MMseqs2's table
            without a header: a representative and a member in each line, and each representative its own member.
        column: the column with the clusters' names, where there is a header.
    """

    path: Path
    column: str = DEFAULT_CLUSTER_COLUMN


class ClusterTable:
    """The cluster of each identifier of a table, as 64-bit hashes: 16 bytes of memory a row, 40 while they are sorted.

    Two of 200 million identifiers share a hash with a probability of 0.1 %; one protein is in a wrong cluster then.

    Args:
        source: the table; the first row of an identifier counts, and a row does not whose cluster has no name, or one
            that stands for none, such as `nan` or `-1`.

    Attributes:
        num_looked_up: records that were looked up so far.
        num_unmatched: those of them that the table does not have.

    Raises:
        InputNotFoundError: the table cannot be opened.
        TableError: it has no such column, a row is too short, or the columns are swapped.
    """

    def __init__(self, source: ClusterSource) -> None:
        self._path = display_name(source.path)
        with open_input(source.path) as stream:
            self._ids, self._keys = _read_table(stream, self._path, source.column)
        _check_column_order(self._ids, self._keys, self._path)
        self.num_looked_up = self.num_unmatched = 0
        self._first_unmatched = ""

    def look_up(self, ids: Sequence[str], unmatched: Keys) -> Keys:
        """Find the clusters of some records.

        A record is known by its identifier, else by the accession in an identifier of the form `xx|ACCESSION|NAME`.

        Args:
            ids: the records' identifiers.
            unmatched: (records,), uint64: the key of a record that the table does not have, its own cluster.

        Returns:
            (records,), uint64: a key for each record; those of one cluster are equal.
        """
        keys, is_found = self._find(_hashes(name.encode() for name in ids))
        keys = np.where(is_found, keys, unmatched)
        others = np.flatnonzero(~is_found)
        inner, is_found = self._find(_hashes(parse_accession(ids[index]).encode() for index in others.tolist()))
        keys[others[is_found]] = inner[is_found]
        missing = others[~is_found]
        if len(missing) and not self.num_unmatched:
            self._first_unmatched = ids[int(missing[0])]
        self.num_looked_up += len(ids)
        self.num_unmatched += len(missing)
        return keys

    def warnings(self) -> list[str]:
        """Say how many of the records that were looked up are not in the table.

        Raises:
            TableError: none of them is.
        """
        if self.num_looked_up and self.num_unmatched == self.num_looked_up:
            found = f"none of the {self.num_looked_up} training proteins is in this table, "
            found += f"the first of them is {self._first_unmatched!r}"
            advice = "give the table of these proteins, their identifiers in a column named 'accession' or 'id'"
            raise TableError(self._path, found, advice)
        if not self.num_unmatched:
            return []
        proteins = f"{self.num_unmatched} of {self.num_looked_up} training proteins"
        return [
            f"{proteins} are not in {self._path} or have no cluster there, each is a cluster of its own; "
            f"the first: {self._first_unmatched!r}"
        ]

    def _find(self, ids: Keys) -> tuple[Keys, NDArray[np.bool_]]:
        if not len(self._ids):
            return ids, np.zeros(len(ids), np.bool_)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._keys[places], self._ids[places] == ids


def parse_accession(record_id: str) -> str:
    """Find the accession in an identifier of the form `xx|ACCESSION|NAME`; others are accessions themselves.

    >>> parse_accession("sp|P69905|HBA_HUMAN"), parse_accession("P69905")
    ('P69905', 'P69905')
    """
    parts = record_id.split("|")
    return parts[1] if len(parts) == 3 else record_id


def _hashes(names: Iterable[bytes]) -> Keys:
    # Python's own hash differs from process to process, and with it the order of clusters would.
    digests = b"".join([hashlib.sha256(name).digest()[:8] for name in names])
    return np.frombuffer(digests, np.uint64)


def _read_table(stream: BinaryIO, path: str, column: str) -> tuple[Keys, Keys]:
    """Hash a table's identifiers and clusters, (rows,) each, sorted by the former."""
    ids, keys = array("Q"), array("Q")
    with reading_table(stream, path) as table:
        places = _find_columns(table.header, path, column)
        identifier, cluster = places or (1, 0)
        rows = (row.cells for row in table.rows)
        for cells in rows if places else chain([table.header], rows):
            if _is_cluster(cells[cluster]):
                ids.frombytes(hashlib.sha256(cells[identifier].encode()).digest()[:8])
                keys.frombytes(hashlib.sha256(cells[cluster].encode()).digest()[:8])
        header = table.header
    all_ids, all_keys = (np.frombuffer(hashes, np.uint64) for hashes in (ids, keys))
    begins_as_mmseqs = len(all_ids) > 0 and all_ids[0] == all_keys[0]
    if places is None and not begins_as_mmseqs and not _are_own_members(all_ids, all_keys):
        raise _missing_column(header, path, column)
    order = np.argsort(all_ids, kind="stable")
    return all_ids[order], all_keys[order]


def _find_columns(header: Sequence[str], path: str, column: str) -> tuple[int, int] | None:
    """Find the columns of identifiers and of clusters; None where the table may be that of MMseqs2, without a header.

    Raises:
        TableError: there is no column of clusters, or none beside it.
    """
    cluster = header.index(column) if header.count(column) == 1 else find_column(header, path, "cluster", [column])
    if cluster is None:
        names = {normalize_name(name) for name in header}
        if len(header) != 2 or not names.isdisjoint(map(normalize_name, _IDENTIFIER_COLUMNS)):
            raise _missing_column(header, path, column)
        return None
    if len(header) < 2:
        raise TableError(path, "there is no column of identifiers", "name it accession or id", line=1)
    identifier = find_column(header, path, "identifier", _IDENTIFIER_COLUMNS, taken=[header[cluster]])
    return int(cluster == 0) if identifier is None else identifier, cluster


def _is_cluster(name: str) -> bool:
    """Tell whether a cell names a cluster, and does not say that there is none."""
    return bool(name) and name != _NOISE and (name == "X" or not is_stand_in(name))


def _are_own_members(ids: Keys, keys: Keys) -> bool:
    """Tell whether there are clusters, and each has a member of its own name."""
    return len(ids) > 0 and len(np.unique(ids[ids == keys])) == len(np.unique(keys))


def _check_column_order(ids: Keys, keys: Keys, path: str) -> None:
    """Refuse a table in which proteins stand several times, sorted by identifiers, and each cluster once."""
    if np.any(ids[1:] == ids[:-1]) and len(np.unique(keys)) == len(keys):
        found = "identifiers recur in this table, and no cluster does: the two columns seem to be swapped"
        advice = "name them in a header, by accession and --cluster-column; MMseqs2 writes the representative first"
        raise TableError(path, found, advice)


def _missing_column(header: Sequence[str], path: str, column: str) -> TableError:
    found = f"no column {column!r} among {column_names(header)}"
    advice = "give a TSV with a header and name its column by --cluster-column, or the table that MMseqs2 writes"
    return TableError(path, found, advice, line=1)


class Clusters:
    """The proteins of a corpus cluster by cluster, read from disk as they are needed.

    Args:
        directory: where `write_clusters` stored them.

    Attributes:
        members: (proteins,), int64, memory-mapped: rows of the corpus; each stands in exactly one cluster.
        offsets: (clusters + 1,), int64, memory-mapped: where each cluster begins in `members`, and the last one ends.
    """

    def __init__(self, directory: Path) -> None:
        self.members: NDArray[np.int64] = open_array(directory / _MEMBERS)
        self.offsets: NDArray[np.int64] = open_array(directory / _OFFSETS)

    def __len__(self) -> int:
        return len(self.offsets) - 1


def has_clusters(directory: Path) -> bool:
    """Tell whether clusters are stored in a directory."""
    return (directory / _OFFSETS).exists()


def write_clusters(directory: Path, keys: Keys) -> None:
    """Store rows cluster by cluster, in the order of the clusters' keys and, within one, of the rows.

    Args:
        directory: the corpus.
        keys: (proteins,), uint64: equal for the proteins of one cluster.
    """
    members = np.argsort(keys, kind="stable")
    keys = keys[members]
    with array_file(directory / _MEMBERS, (), np.int64) as stream:
        stream.append(members)
    begins = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=begins[1:])
    with array_file(directory / _OFFSETS, (), np.int64) as stream:
        stream.append(np.append(np.flatnonzero(begins), len(keys)))


class ClusterSampler:
    """A cluster first and then one of its members, so that large families do not drown the rest.

    Args:
        clusters: the proteins of each cluster.

    Source: Lin et al. 2023, supplement A.1: ESM-2 draws UniRef50 clusters, and then UniRef90 members.
    """

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    def draw(self, rng: np.random.Generator) -> Rows:
        """Shuffle the clusters, and draw a member of each."""
        drawn = rng.permutation(len(self._clusters))
        for block in row_blocks(len(drawn)):
            starts, stops = (self._clusters.offsets[drawn[block] + end] for end in (0, 1))
            chosen = starts + (rng.random(len(starts)) * (stops - starts)).astype(np.int64)
            drawn[block] = self._clusters.members[chosen]
        return drawn

    def most_tokens(self, count: TokenCounts) -> int:
        """Sum the tokens of the longest member of each cluster."""
        total = 0
        for block in row_blocks(len(self._clusters)):
            offsets = np.asarray(self._clusters.offsets[block.start : block.stop + 1])
            counts = count(np.asarray(self._clusters.members[offsets[0] : offsets[-1]]))
            total += int(np.maximum.reduceat(counts, offsets[:-1] - offsets[0]).sum())
        return total
