"""Which proteins belong together: read from a table, stored beside a corpus.

A stored grouping is two arrays: `members.npy` (proteins,) int64, the rows of the corpus cluster by cluster, and
`cluster_offsets.npy` (clusters + 1,) int64, where each cluster begins and the last one ends.
"""

import codecs
import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from protembed.data.arrays import array_file, open_array
from protembed.errors import TableError
from protembed.inputs import display_name, open_input

Keys = NDArray[np.uint64]

DEFAULT_CLUSTER_COLUMN = "cluster50"

_MEMBERS, _OFFSETS = "members.npy", "cluster_offsets.npy"
_IDENTIFIER_COLUMNS = ("accession", "id")


@dataclass(frozen=True, kw_only=True)
class ClusterSource:
    """Where the user keeps clusters.

    Attributes:
        path: a TSV with a header line, plain or compressed; `-` is stdin. Identifiers are in the column `accession`,
            else `id`, else in the first one. Or MMseqs2's table without a header: a representative and a member in
            each line, the first line naming a representative twice.
        column: the column with the clusters' names, where there is a header.
    """

    path: Path
    column: str = DEFAULT_CLUSTER_COLUMN


class ClusterTable:
    """The cluster of each identifier of a table, as 64-bit hashes: 16 bytes of memory a row, 40 while they are sorted.

    Two of 200 million identifiers share a hash with a probability of 0.1 %; one protein is in a wrong cluster then.

    Args:
        source: the table; the first row of an identifier counts, and a row without a cluster's name does not.

    Attributes:
        num_looked_up: records that were looked up so far.
        num_unmatched: those of them that the table does not have.

    Raises:
        InputNotFoundError: the table cannot be opened.
        TableError: it has no such column, or a row is too short.
    """

    def __init__(self, source: ClusterSource) -> None:
        self._path = display_name(source.path)
        with open_input(source.path) as stream:
            self._ids, self._keys = _read_table(stream, self._path, source.column)
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
        inner, is_found = self._find(_hashes(accession_of(ids[index]).encode() for index in others.tolist()))
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
            f"{proteins} are not in {self._path}, each is a cluster of its own; the first: {self._first_unmatched!r}"
        ]

    def _find(self, ids: Keys) -> tuple[Keys, NDArray[np.bool_]]:
        if not len(self._ids):
            return ids, np.zeros(len(ids), np.bool_)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._keys[places], self._ids[places] == ids


def accession_of(record_id: str) -> str:
    """Find the accession in an identifier of the form `xx|ACCESSION|NAME`; others are accessions themselves.

    >>> accession_of("sp|P69905|HBA_HUMAN"), accession_of("P69905")
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
    first = stream.readline().removeprefix(codecs.BOM_UTF8)
    header = first.decode(errors="replace").rstrip("\r\n").split("\t")
    rows: Iterable[bytes] = stream
    if column in header:
        identifier = next((header.index(name) for name in _IDENTIFIER_COLUMNS if name in header), 0)
        cluster, first_line = header.index(column), 2
    elif len(header) == 2 and header[0] == header[1]:  # MMseqs2's, whose clusters begin with their representative
        cluster, identifier, first_line, rows = 0, 1, 1, chain([first], stream)
    else:
        found = f"no column {column!r} among {', '.join(map(repr, header))}"
        advice = "give a TSV with a header and name its column by --cluster-column, or the table that MMseqs2 writes"
        raise TableError(path, found, advice, line=1)
    num_needed = max(identifier, cluster) + 1
    ids, keys = array("Q"), array("Q")
    for line, row in enumerate(rows, start=first_line):
        cells = row.rstrip(b"\r\n").split(b"\t", num_needed)
        if len(cells) < num_needed:
            if not row.strip():
                continue
            found = f"the row has {len(cells)} cells, none in the column {header[num_needed - 1]!r}"
            raise TableError(path, found, "complete the row, or remove it", line=line)
        if cells[cluster]:
            ids.frombytes(hashlib.sha256(cells[identifier]).digest()[:8])
            keys.frombytes(hashlib.sha256(cells[cluster]).digest()[:8])
    all_ids, all_keys = (np.frombuffer(hashes, np.uint64) for hashes in (ids, keys))
    order = np.argsort(all_ids, kind="stable")
    return all_ids[order], all_keys[order]


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
