"""The memory-mapped tokens of a pretraining corpus, built once from FASTA files.

A corpus is a directory: `tokens.npy` (residues,) uint8, all proteins concatenated without special tokens;
`offsets.npy` (proteins + 1,) int64; `corpus.json` with its name, counts and a fingerprint of the tokens; and the files
of `protembed.pretraining.clusters` if clusters are known.
A sequence that occurs several times is stored once, where it occurs first.

Building keeps about twelve bytes of memory per protein, mostly the hash of its sequence; clusters take forty more.
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

from protembed.config.common import InputConfig
from protembed.data.alphabet import decode, encode
from protembed.data.batching import Tokens
from protembed.data.clusters import ClusterTable
from protembed.data.fasta import ReadStatistics, read_fasta
from protembed.data.hashing import hash_texts
from protembed.errors import DamagedRunError, EmptyValidationSetError, TooFewProteinsError
from protembed.io.arrays import array_file, hash_array, open_array
from protembed.io.reading import default_path, read_json
from protembed.io.writing import atomic_directory, remove, write_json
from protembed.pretraining.clusters import Clusters, write_clusters
from protembed.pretraining.hold_out import HoldOut
from protembed.text import pluralize, reason_of

HELD_OUT_NAME = "held_out"

_TOKENS, _OFFSETS, _FACTS = "tokens.npy", "offsets.npy", "corpus.json"
_CLUSTER_KEYS = "cluster_keys.npy"
_RESIDUES_PER_BLOCK = 1 << 20
_PROTEINS_PER_BLOCK = 1 << 22

Offsets = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]


class Corpus:
    """Proteins as token ids, memory-mapped from a directory that `corpus_writer` made.

    Attributes:
        tokens: (residues,), uint8; tokens of all proteins, concatenated.
        offsets: (proteins + 1,), int64; start of each protein in `tokens`, and end of the last one.
        facts: Contents of `corpus.json`; its `num_duplicates` are not stored.
        clusters: None if no clusters are known.
    """

    def __init__(self, directory: Path) -> None:
        self.tokens: Tokens = open_array(directory / _TOKENS)
        self.offsets: Offsets = open_array(directory / _OFFSETS)
        self.facts: dict[str, Any] = read_json(directory / _FACTS)
        self.name = str(self.facts.get("name", directory.name))  # corpora of version 0.1 have none
        self.clusters = Clusters.open(directory)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tokens:
        """Return one protein without `<cls>` and `<eos>`, (residues,), uint8."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Residues of each protein, (proteins,), int64."""
        return np.diff(self.offsets)

    @property
    def num_residues(self) -> int:
        """Residues of all proteins."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all tokens and boundaries; equal corpora have equal fingerprints."""
        return str(self.facts["fingerprint"])

    def sequence(self, row: int) -> str:
        """Return one protein as letters."""
        return decode(self[row])


# Writing


def _residues(tokens: Tokens, offsets: Offsets, row: np.intp) -> bytes:
    return tokens[offsets[row] : offsets[row + 1]].tobytes()


def _first_occurrences(hashes: Hashes, tokens: Tokens, offsets: Offsets, proteins_per_block: int) -> Mask:
    """Return which proteins are no copy of an earlier one, (proteins,).

    The hashes are sorted group by group, which bounds the memory; where they are equal, the residues are compared.
    """
    is_first = np.ones(len(hashes), np.bool_)
    # Any 16 bits of a hash divide proteins evenly, and the last ones are a view that needs no memory.
    digits = hashes.view(np.uint16)[::4]
    num_groups = -(-len(hashes) // proteins_per_block)
    for low, high in pairwise(np.linspace(0, 1 << 16, num_groups + 1).astype(np.int64)):
        rows = np.flatnonzero((low <= digits) & (digits < high))
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        repeats = np.flatnonzero(hashes[rows[1:]] == hashes[rows[:-1]])
        starts_run = np.diff(repeats, prepend=-2) != 1
        seen: set[bytes] = set()
        for index, is_start in zip(repeats, starts_run, strict=True):
            if is_start:
                seen = {_residues(tokens, offsets, rows[index])}
            residues = _residues(tokens, offsets, rows[index + 1])
            is_first[rows[index + 1]] = residues not in seen
            seen.add(residues)
    return is_first


def _remove_copies(directory: Path, tokens: Tokens, offsets: Offsets, is_first: Mask, residues_per_block: int) -> None:
    """Replace the files of tokens and offsets; the arrays given remain mapped to the old files."""
    edges = np.searchsorted(offsets, [*range(0, len(tokens), residues_per_block), len(tokens)])
    with (
        array_file(directory / _TOKENS, (), np.uint8) as new_tokens,
        array_file(directory / _OFFSETS, (), np.int64) as new_offsets,
    ):
        new_offsets.append(np.zeros(1))
        for start, stop in pairwise(edges):
            lengths, remains = np.diff(offsets[start : stop + 1]), is_first[start:stop]
            new_offsets.append(new_tokens.num_rows + np.cumsum(lengths[remains]))
            new_tokens.append(tokens[offsets[start] : offsets[stop]][np.repeat(remains, lengths)])


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


class CorpusWriter:
    """Appends proteins to a corpus that is being built; see `corpus_writer`.

    Attributes:
        hashes: (proteins,), uint64; 64 bits of the hash of each sequence, available once the corpus is complete.
    """

    def __init__(
        self,
        directory: Path,
        files: ExitStack,
        clusters: ClusterTable | None,
        residues_per_block: int,
        proteins_per_block: int,
    ) -> None:
        self._tokens = files.enter_context(array_file(directory / _TOKENS, (), np.uint8))
        self._offsets = files.enter_context(array_file(directory / _OFFSETS, (), np.int64))
        self._cluster_keys = files.enter_context(array_file(directory / _CLUSTER_KEYS, (), np.uint64))
        self._clusters = clusters
        self._residues_per_block, self._proteins_per_block = residues_per_block, proteins_per_block
        self._offsets.append(np.zeros(1))
        self._sequences: list[str] = []
        self._ids: list[str] = []
        self._num_buffered = 0
        self._all_hashes = array("Q")
        self.hashes: Hashes = np.empty(0, np.uint64)

    def add(self, sequence: str, record_id: str = "") -> None:
        """Append one protein, whose identifier is looked up in the table of clusters."""
        self._sequences.append(sequence)
        self._ids.append(record_id)
        self._num_buffered += len(sequence)
        # One call of NumPy for many proteins: one call per protein took half as long as reading them.
        if self._num_buffered >= self._residues_per_block:
            self.flush()

    def flush(self) -> None:
        """Write the buffered proteins.

        Raises:
            ConfigError: If a letter is not a residue of the alphabet; the FASTA reader never passes one.
        """
        self._offsets.append(self._tokens.num_rows + np.cumsum(np.array([*map(len, self._sequences)], np.int64)))
        self._tokens.append(encode("".join(self._sequences)))
        hashes = hash_texts(self._sequences)
        self._all_hashes.frombytes(hashes.tobytes())
        if self._clusters is not None:
            # The hash of its sequence is the key of a protein without a cluster.
            self._cluster_keys.append(self._clusters.look_up(self._ids, hashes))
        self._sequences, self._ids, self._num_buffered = [], [], 0

    def finish(self, directory: Path, name: str) -> None:
        """Remove copies, group clusters and write the facts; call it when all files are closed."""
        all_hashes = np.frombuffer(self._all_hashes, np.uint64)
        tokens, offsets = (open_array(directory / file) for file in (_TOKENS, _OFFSETS))
        is_first = _first_occurrences(all_hashes, tokens, offsets, self._proteins_per_block)
        num_duplicates = len(is_first) - int(is_first.sum())
        self.hashes = all_hashes
        if num_duplicates:
            self.hashes, self._all_hashes = all_hashes[is_first], array("Q")
            _remove_copies(directory, tokens, offsets, is_first, self._residues_per_block)
        if self._clusters is not None:
            write_clusters(directory, open_array(directory / _CLUSTER_KEYS)[is_first])
        remove(directory / _CLUSTER_KEYS)
        _write_facts(directory, name, num_duplicates)


@contextmanager
def corpus_writer(
    directory: Path,
    *,
    name: str | None = None,
    clusters: ClusterTable | None = None,
    residues_per_block: int = _RESIDUES_PER_BLOCK,
    proteins_per_block: int = _PROTEINS_PER_BLOCK,
) -> Iterator[CorpusWriter]:
    """Build a corpus; its directory appears when the block ends without an error, and not at all otherwise.

    Its name in messages is that of the directory by default. The result does not depend on how many residues are held
    in memory at once, nor on how many proteins are sorted at once by the hashes of their sequences.
    """
    with atomic_directory(directory) as temporary:
        with ExitStack() as files:
            writer = CorpusWriter(temporary, files, clusters, residues_per_block, proteins_per_block)
            yield writer
            writer.flush()
        writer.finish(temporary, directory.name if name is None else name)


# Training and validation


@dataclass(frozen=True, kw_only=True)
class Corpora:
    """Training proteins, and one or more validation sets."""

    train: Corpus
    valid: Sequence[Corpus]


def open_corpora(directory: Path) -> Corpora:
    """Open the corpora that `build_corpora` stored.

    Raises:
        DamagedRunError: If a corpus is incomplete.
    """
    num_valid = len(list(directory.glob("valid-*")))
    try:
        valid = [Corpus(directory / f"valid-{number}") for number in range(1, num_valid + 1)]
        return Corpora(train=Corpus(directory / "train"), valid=valid)
    except (OSError, EOFError, ValueError) as error:
        raise DamagedRunError(directory, f"the stored proteins cannot be read ({reason_of(error)})") from error


def _named_sets(paths: Sequence[Path]) -> dict[str, Path]:
    """Name validation sets after their files, and number those of the same name."""
    sets: dict[str, Path] = {}
    for path in paths:
        stem = default_path(path, "").name
        name = next(name for name in chain([stem], (f"{stem}-{number}" for number in count(2))) if name not in sets)
        sets[name] = path
    return sets


def _add_valid(writer: CorpusWriter, name: str, path: Path, reader: InputConfig) -> list[str]:
    """Add the proteins of one validation file; return warnings about it."""
    statistics = ReadStatistics()
    for record in read_fasta([path], on_illegal=reader.on_illegal, gaps=reader.gaps, statistics=statistics):
        writer.add(record.sequence)
    if not statistics.num_records:
        raise EmptyValidationSetError(name)
    return [f"validation set {name}: {warning}" for warning in statistics.warnings()]


def _shared_warning(valid: Hashes, train: Hashes, name: str) -> list[str]:
    is_shared = np.zeros(len(valid), np.bool_)
    for start in range(0, len(train), _PROTEINS_PER_BLOCK):
        is_shared |= np.isin(valid, train[start : start + _PROTEINS_PER_BLOCK])
    if not is_shared.any():
        return []
    shared = f"{is_shared.sum()} of its proteins are in the training data too"
    return [f"validation set {name}: {shared}; its metrics will be too optimistic"]


def _duplicate_warnings(corpora: Corpora) -> list[str]:
    named = {"training data": corpora.train, **{f"validation set {corpus.name}": corpus for corpus in corpora.valid}}
    return [
        f"{name}: skipped {pluralize(corpus.facts['num_duplicates'], 'exact duplicate')} of earlier proteins"
        for name, corpus in named.items()
        if corpus.facts["num_duplicates"]
    ]


def build_corpora(
    directory: Path,
    fasta: Sequence[Path],
    valid: Sequence[Path],
    *,
    clusters: ClusterTable | None = None,
    reader: InputConfig | None = None,
) -> list[str]:
    """Store training and validation proteins; without validation files a twentieth is held out by sequence hash.

    Args:
        directory: Final path of the corpora, which appears only when they are complete.
        fasta: Files of training proteins.
        valid: One file per validation set, which is named after the file.
        clusters: Table of the training proteins' clusters; None if it is not known.
        reader: Policies for characters that are not residues; the defaults if None.

    Returns:
        Warnings about the input, as sentences.

    Raises:
        DataError: If the input is invalid, or too small to hold proteins out.
        OutputError: If the corpora cannot be written.
    """
    reader, statistics, hold_out = reader or InputConfig(), ReadStatistics(), HoldOut()
    with atomic_directory(directory) as temporary:
        with ExitStack() as stack:
            train = stack.enter_context(corpus_writer(temporary / "train", clusters=clusters))
            held_out = train
            if not valid:
                held_out = stack.enter_context(corpus_writer(temporary / "valid-1", name=HELD_OUT_NAME))
            records = read_fasta(fasta, on_illegal=reader.on_illegal, gaps=reader.gaps, statistics=statistics)
            divided = ((record, False) for record in records) if valid else hold_out.split(records)
            for record, is_held_out in divided:
                (held_out if is_held_out else train).add(record.sequence, record.id)
        if not len(train.hashes) or not len(held_out.hashes):
            raise TooFewProteinsError(len(train.hashes) + len(held_out.hashes))
        warnings = statistics.warnings() + (clusters.warnings() if clusters else []) + hold_out.warnings
        for number, (name, path) in enumerate(_named_sets(valid).items(), start=1):
            with corpus_writer(temporary / f"valid-{number}", name=name) as writer:
                warnings += _add_valid(writer, name, path, reader)
            warnings += _shared_warning(writer.hashes, train.hashes, name)
        warnings += _duplicate_warnings(open_corpora(temporary))
    if not valid:
        warnings.append("validation proteins are held out by sequence hash; their relatives may be in training")
    return warnings
