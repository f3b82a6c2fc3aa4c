"""The memory-mapped tokens of a pretraining corpus, built once from FASTA files.

A corpus is a directory: `tokens.npy` (residues,) uint8, all proteins one after the other without special tokens;
`offsets.npy` (proteins + 1,) int64; `corpus.json` with its name, counts and a fingerprint of the tokens; where clusters
are known, those of `protembed.pretraining.clusters`.
A sequence that occurs several times is stored once, at its first place.

Building keeps about twelve bytes of memory a protein, most of them its sequence's hash; clusters take forty more.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.data.alphabet import decode, encode
from protembed.data.fasta import OnIllegal, ReadStatistics, read_fasta
from protembed.data.hashing import hash_fraction, sequence_sha256
from protembed.errors import DamagedRunError, EmptyValidationSetError, TooFewProteinsError
from protembed.io.arrays import array_file, hash_array, open_array
from protembed.io.reading import default_path, read_json
from protembed.io.writing import atomic_directory, remove, write_json
from protembed.pretraining.clusters import Clusters, ClusterSource, ClusterTable, has_clusters, write_clusters

HELD_OUT_FRACTION = 0.05
HELD_OUT_NAME = "held_out"

Hashes = NDArray[np.uint64]

_TOKENS, _OFFSETS, _FACTS = "tokens.npy", "offsets.npy", "corpus.json"
_CLUSTER_KEYS = "cluster_keys.npy"
# Residues, and proteins, that are held in memory at once.
_RESIDUES_AT_ONCE = 1 << 20
_PROTEINS_AT_ONCE = 1 << 22


class Corpus:
    """Proteins as token ids, read from disk as they are needed.

    Args:
        directory: what `corpus_writer` made.

    Attributes:
        tokens: (residues,), uint8, memory-mapped: all proteins one after the other.
        offsets: (proteins + 1,), int64, memory-mapped: where each protein begins, and the last one ends.
        facts: its `num_proteins`, `num_residues`, `num_duplicates` (left out), `fingerprint` and `name`.
        name: what messages and logs call it.
        clusters: which proteins belong together; None where that is not known.
    """

    def __init__(self, directory: Path) -> None:
        self.tokens: NDArray[np.uint8] = open_array(directory / _TOKENS)
        self.offsets: NDArray[np.int64] = open_array(directory / _OFFSETS)
        self.facts: dict[str, Any] = read_json(directory / _FACTS)
        self.name = str(self.facts.get("name", directory.name))  # corpora of version 0.1 have none
        self.clusters = Clusters(directory) if has_clusters(directory) else None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Return one protein, (residues,), uint8, without `<cls>` and `<eos>`."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(proteins,), int64: residues of each protein."""
        return np.diff(self.offsets)

    @property
    def num_residues(self) -> int:
        """Residues of all proteins."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """The sha256 of all tokens and boundaries; equal corpora have equal fingerprints."""
        return str(self.facts["fingerprint"])

    def sequence(self, row: int) -> str:
        """Return one protein as letters."""
        return decode(self[row])


# Writing


class CorpusWriter:
    """Appends proteins to a corpus that is being built; see `corpus_writer`.

    Attributes:
        hashes: (proteins,), uint64: 64 bits of the hash of each sequence; there once the corpus is complete.
    """

    def __init__(self, directory: Path, files: ExitStack, clusters: ClusterTable | None) -> None:
        self._tokens = files.enter_context(array_file(directory / _TOKENS, (), np.uint8))
        self._offsets = files.enter_context(array_file(directory / _OFFSETS, (), np.int64))
        self._cluster_keys = files.enter_context(array_file(directory / _CLUSTER_KEYS, (), np.uint64))
        self._clusters = clusters
        self._offsets.append(np.zeros(1))
        self._sequences: list[str] = []
        self._ids: list[str] = []
        self._num_waiting = 0
        self._all_hashes = array("Q")
        self.hashes: Hashes = np.empty(0, np.uint64)

    def add(self, sequence: str, record_id: str = "") -> None:
        """Append one protein, given as residues of the alphabet; its identifier is looked up in the clusters."""
        self._sequences.append(sequence)
        self._ids.append(record_id)
        self._num_waiting += len(sequence)
        # One call of numpy for many proteins: one for each took half as long as reading it.
        if self._num_waiting >= _RESIDUES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting.

        Raises:
            ValueError: a letter is no residue of the alphabet; the readers have seen to that.
        """
        self._offsets.append(self._tokens.num_rows + np.cumsum(np.array([*map(len, self._sequences)], np.int64)))
        self._tokens.append(encode("".join(self._sequences)))
        digests = b"".join([sequence_sha256(sequence)[:8] for sequence in self._sequences])
        self._all_hashes.frombytes(digests)
        if self._clusters is not None:
            # A protein without a cluster is one of its own, known by its sequence.
            self._cluster_keys.append(self._clusters.look_up(self._ids, np.frombuffer(digests, np.uint64)))
        self._sequences, self._ids, self._num_waiting = [], [], 0

    def finish(self, directory: Path, name: str) -> None:
        """Leave out copies, group clusters and write the facts; all files are closed."""
        all_hashes = np.frombuffer(self._all_hashes, np.uint64)
        tokens, offsets = (open_array(directory / file) for file in (_TOKENS, _OFFSETS))
        kept = _first_occurrences(all_hashes, tokens, offsets)
        num_duplicates = len(kept) - int(kept.sum())
        self.hashes = all_hashes
        if num_duplicates:
            self.hashes, self._all_hashes = all_hashes[kept], array("Q")
            _compact(directory, tokens, offsets, kept)
        if self._clusters is not None:
            write_clusters(directory, open_array(directory / _CLUSTER_KEYS)[kept])
        remove(directory / _CLUSTER_KEYS)
        _write_facts(directory, name, num_duplicates)


@contextmanager
def corpus_writer(
    directory: Path, *, name: str | None = None, clusters: ClusterTable | None = None
) -> Iterator[CorpusWriter]:
    """Build a corpus directory; it appears under its name when the block ends well, and not at all otherwise.

    Args:
        directory: the final name.
        name: what messages call the corpus; by default as its directory.
        clusters: where the clusters of the proteins are looked up.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_directory(directory) as temporary:
        with ExitStack() as files:
            writer = CorpusWriter(temporary, files, clusters)
            yield writer
            writer.flush()
        writer.finish(temporary, directory.name if name is None else name)


def _write_facts(directory: Path, name: str, num_duplicates: int) -> None:
    digest = hashlib.sha256()
    sizes = [hash_array(directory / file, digest) for file in (_TOKENS, _OFFSETS)]
    facts = {
        "name": name,
        "num_proteins": sizes[1] - 1,
        "num_residues": sizes[0],
        "num_duplicates": num_duplicates,
        "fingerprint": digest.hexdigest(),
    }
    write_json(directory / _FACTS, facts)


def _first_occurrences(hashes: Hashes, tokens: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell, (proteins,), which proteins are no copy of an earlier one.

    The hashes are sorted part by part, which bounds the memory; where they are equal, the residues decide.
    """
    kept = np.ones(len(hashes), np.bool_)
    # Any 16 bits of a hash divide proteins evenly, and those at its end are a view that costs nothing.
    digits = hashes.view(np.uint16)[::4]
    num_parts = -(-len(hashes) // _PROTEINS_AT_ONCE)
    for low, high in pairwise(np.linspace(0, 1 << 16, num_parts + 1).astype(np.int64)):
        rows = np.flatnonzero((low <= digits) & (digits < high))
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        repeats = np.flatnonzero(hashes[rows[1:]] == hashes[rows[:-1]])
        begins_group = np.diff(repeats, prepend=-2) != 1
        seen: set[bytes] = set()
        for place, begins in zip(repeats, begins_group, strict=True):
            if begins:
                seen = {_residues(tokens, offsets, rows[place])}
            residues = _residues(tokens, offsets, rows[place + 1])
            kept[rows[place + 1]] = residues not in seen
            seen.add(residues)
    return kept


def _residues(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], row: np.intp) -> bytes:
    return tokens[offsets[row] : offsets[row + 1]].tobytes()


def _compact(directory: Path, tokens: NDArray[np.uint8], offsets: NDArray[np.int64], kept: NDArray[np.bool_]) -> None:
    """Write tokens and offsets anew with the proteins that stay; the mapped arrays go on showing the old files."""
    edges = np.searchsorted(offsets, [*range(0, len(tokens), _RESIDUES_AT_ONCE), len(tokens)])
    with (
        array_file(directory / _TOKENS, (), np.uint8) as new_tokens,
        array_file(directory / _OFFSETS, (), np.int64) as new_offsets,
    ):
        new_offsets.append(np.zeros(1))
        for start, stop in pairwise(edges):
            lengths, stays = np.diff(offsets[start : stop + 1]), kept[start:stop]
            new_offsets.append(new_tokens.num_rows + np.cumsum(lengths[stays]))
            new_tokens.append(tokens[offsets[start] : offsets[stop]][np.repeat(stays, lengths)])


# Training and validation


@dataclass(frozen=True, kw_only=True)
class Corpora:
    """The proteins to train on, and one or more sets to validate on."""

    train: Corpus
    valid: Sequence[Corpus]


def open_corpora(directory: Path) -> Corpora:
    """Open what `build_corpora` made.

    Raises:
        DamagedRunError: it is not whole.
    """
    num_valid = len(list(directory.glob("valid-*")))
    try:
        valid = [Corpus(directory / f"valid-{number}") for number in range(1, num_valid + 1)]
        return Corpora(train=Corpus(directory / "train"), valid=valid)
    except (OSError, EOFError, ValueError) as error:
        raise DamagedRunError(directory, f"the stored proteins cannot be read ({error})") from error


def build_corpora(
    directory: Path,
    fasta: Sequence[Path],
    valid: Sequence[Path],
    *,
    clusters: ClusterSource | None = None,
    on_illegal: OnIllegal = "error",
) -> list[str]:
    """Store training and validation proteins; without validation files a twentieth is held out by sequence hash.

    Args:
        directory: the final name; it appears there complete.
        fasta: the proteins to train on.
        valid: one file for each validation set, which is named after it.
        clusters: where the clusters of the training proteins stand.
        on_illegal: what to do about a letter that is no residue.

    Returns:
        Warnings about the input, in sentences.

    Raises:
        DataError: the input is not what it should be, or too small to hold proteins out.
        OutputError: the corpora cannot be written.
    """
    table = None if clusters is None else ClusterTable(clusters)
    statistics = ReadStatistics()
    with atomic_directory(directory) as temporary:
        with ExitStack() as stack:
            train = stack.enter_context(corpus_writer(temporary / "train", clusters=table))
            held_out = train
            if not valid:
                held_out = stack.enter_context(corpus_writer(temporary / "valid-1", name=HELD_OUT_NAME))
            for record in read_fasta(fasta, on_illegal=on_illegal, statistics=statistics):
                is_held_out = not valid and hash_fraction(record.sequence) < HELD_OUT_FRACTION
                (held_out if is_held_out else train).add(record.sequence, record.id)
        if not len(train.hashes) or not len(held_out.hashes):
            raise TooFewProteinsError(len(train.hashes) + len(held_out.hashes))
        warnings = statistics.warnings() + (table.warnings() if table else [])
        for number, (name, path) in enumerate(_named_sets(valid).items(), start=1):
            with corpus_writer(temporary / f"valid-{number}", name=name) as writer:
                warnings += _add_valid(writer, name, path, on_illegal)
            warnings += _shared_warning(writer.hashes, train.hashes, name)
        warnings += _duplicates_warnings(open_corpora(temporary))
    if not valid:
        warnings.append("validation proteins are held out by sequence hash; relatives of them may be in training")
    return warnings


def _named_sets(paths: Sequence[Path]) -> dict[str, Path]:
    """Name validation sets after their files, with numbers where files share a name."""
    sets: dict[str, Path] = {}
    for path in paths:
        stem = default_path(path, "").name
        name = next(name for name in chain([stem], (f"{stem}-{number}" for number in count(2))) if name not in sets)
        sets[name] = path
    return sets


def _add_valid(writer: CorpusWriter, name: str, path: Path, on_illegal: OnIllegal) -> list[str]:
    """Add the proteins of one validation file; return warnings about it."""
    statistics = ReadStatistics()
    for record in read_fasta([path], on_illegal=on_illegal, statistics=statistics):
        writer.add(record.sequence)
    if not statistics.num_records:
        raise EmptyValidationSetError(name)
    return [f"validation set {name}: {warning}" for warning in statistics.warnings()]


def _shared_warning(valid: Hashes, train: Hashes, name: str) -> list[str]:
    is_shared = np.zeros(len(valid), np.bool_)
    for start in range(0, len(train), _PROTEINS_AT_ONCE):
        is_shared |= np.isin(valid, train[start : start + _PROTEINS_AT_ONCE])
    if not is_shared.any():
        return []
    found = f"{is_shared.sum()} of its proteins stand in the training data too"
    return [f"validation set {name}: {found}; its figures will look better than they are"]


def _duplicates_warnings(corpora: Corpora) -> list[str]:
    parts = {"training data": corpora.train, **{f"validation set {corpus.name}": corpus for corpus in corpora.valid}}
    return [
        f"{part}: {corpus.facts['num_duplicates']} exact copies of earlier proteins are left out"
        for part, corpus in parts.items()
        if corpus.facts["num_duplicates"]
    ]
