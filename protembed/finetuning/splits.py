"""The parts of a labelled table: as its split column says, by sequence, by cluster of similar ones, or in folds."""

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protembed.config.common import Task
from protembed.config.finetune import LabelTableConfig
from protembed.data.alphabet import NUM_AMINO_ACIDS
from protembed.data.hashing import hash_fraction, kmer_indices
from protembed.errors import TableError
from protembed.finetuning.labels import LabelledProtein, LabelledTable, Split, SplitTable
from protembed.finetuning.targets import label_set

_K = 5
_NUM_KMERS = NUM_AMINO_ACIDS**_K
# What two unrelated proteins share: a few by repeats and simple stretches, and twice what equally frequent amino acids
# would give by chance. Of 4, 5 and 6, and of none to six, these told proteins of one 50 % cluster best from others:
# 94 % of them are nearer than the nearest stranger of 98 % of the proteins (benchmarks/README.md).
_SHARED_BY_ANY, _SHARED_BY_CHANCE = 4.0, 2.0 / _NUM_KMERS
# One substitution in the middle of a shorter one leaves so few 5-mers alike that it looks like a stranger's.
SHORTEST_COMPARED = 30
# Proteins compared at once: no more than so many pairs are held.
_MOST_PAIRS, _MOST_AT_ONCE = 1 << 23, 512

# (sequences, k-mers), float32 ones; scipy has no types.
KmerSets: TypeAlias = Any


def kmer_sets(sequences: Sequence[str]) -> KmerSets:
    """Note which 5-mers of standard residues occur in each sequence.

    Returns:
        (sequences, 3,200,000), float32 ones.
    """
    sets = [np.unique(kmer_indices(sequence, _K)) for sequence in sequences]
    ends = np.cumsum([0, *map(len, sets)])
    columns = np.concatenate([np.zeros(0, np.int64), *sets])
    return sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), _NUM_KMERS))


def nearest(queries: Sequence[str], references: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the most similar reference of each query.

    Args:
        queries: upper-case sequences.
        references: upper-case sequences, at least one.

    Returns:
        The number of the reference, (queries,), and how similar it is, (queries,): an estimate of the share of
        identical residues, from 0 (no more 5-mers in common than strangers have) to 1.

    Source: Ondov et al. 2016, "Mash", for reading an identity off the share of common k-mers; here the share is of the
    shorter protein's, so that a fragment is as similar as can be to the whole.
    """
    numbers, similarities = np.zeros(len(queries), np.int64), np.zeros(len(queries))
    known = kmer_sets(references)
    for rows, part in _parts(kmer_sets(queries), len(references)):
        similarity = _similarities(part, known)
        numbers[rows] = similarity.argmax(1)
        similarities[rows] = similarity.max(1)
    same = {sequence: number for number, sequence in reversed(list(enumerate(references)))}
    for number, query in enumerate(queries):
        if query in same:
            numbers[number], similarities[number] = same[query], 1.0
    return numbers, similarities


def greedy_clusters(sequences: Sequence[str], min_similarity: float) -> list[str]:
    """Group similar sequences: the longest first, each with the most similar representative so far, or as a new one.

    Args:
        sequences: upper-case.
        min_similarity: to a representative, as `nearest` measures it.

    Returns:
        The representative of each sequence; it does not depend on the order of the sequences.

    Source: Li and Godzik 2006, "CD-HIT", for the order.
    """
    unique = sorted(set(sequences), key=lambda sequence: (-len(sequence), sequence))
    sets, representatives, chosen = kmer_sets(unique), list[int](), dict[str, str]()
    for rows, part in _parts(sets, len(unique)):
        known = _similarities(part, sets[representatives]) if representatives else np.zeros((len(rows), 0))
        among = _similarities(part, part)
        new = list[int]()
        for place, number in enumerate(rows):
            similarity = np.concatenate([known[place], among[place, new]])
            if len(similarity) and similarity.max() >= min_similarity:
                members = [*representatives, *(rows[other] for other in new)]
                chosen[unique[number]] = unique[members[int(similarity.argmax())]]
            else:
                chosen[unique[number]] = unique[number]
                new.append(place)
        representatives += [rows[place] for place in new]
    return [chosen[sequence] for sequence in sequences]


def _parts(sets: KmerSets, num_others: int) -> Iterator[tuple[range, KmerSets]]:
    at_once = max(1, min(_MOST_AT_ONCE, _MOST_PAIRS // max(1, num_others)))
    for start in range(0, sets.shape[0], at_once):
        rows = range(start, min(start + at_once, sets.shape[0]))
        yield rows, sets[rows.start : rows.stop]


def _similarities(left: KmerSets, right: KmerSets) -> NDArray[np.float64]:
    """Compare every sequence with every other, (left, right)."""
    shared = (left @ right.T).toarray()
    sizes_left, sizes_right = (np.diff(sets.indptr).astype(np.float64) for sets in (left, right))
    for_nothing = _SHARED_BY_ANY + _SHARED_BY_CHANCE * np.outer(sizes_left, sizes_right)
    smaller = np.minimum.outer(sizes_left, sizes_right)
    share = (shared - for_nothing) / np.maximum(smaller - for_nothing, 1.0)
    return np.asarray(np.clip(share, 0.0, 1.0) ** (1 / _K))


HELD_OUT_FRACTION = 0.1
NUM_FOLDS = 5
_ADVICE = "add rows whose split says so, or, to be divided, more proteins: different ones, several of each class"
_PARTS: Sequence[Split] = ("train", "valid", "test")

Parts = Mapping[Split, Sequence[LabelledProtein]]


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """A labelled table, divided for training and for measuring.

    Attributes:
        folds: in each of them the test part is measured; one alone, unless there are folds.
        final: the parts of which the model that is kept is made; the test part is empty where every protein was
            measured in a fold.
        notes: what was decided for the user, in sentences.
        warnings: what may make the figures look better than they are, in sentences.
    """

    folds: Sequence[SplitTable]
    final: SplitTable
    notes: Sequence[str]
    warnings: Sequence[str] = ()

    @property
    def has_folds(self) -> bool:
        """Whether every protein is measured in a fold."""
        return len(self.folds) > 1


def split_table(labels: LabelledTable, task: Task, config: LabelTableConfig, seed: int) -> DataSplit:
    """Divide a labelled table.

    Args:
        labels: the table.
        task: what the labels are; where parts are drawn, training sees every class.
        config: how; by the split column where there is one and nothing else is wanted, else by cluster.
        seed: of what is drawn.

    Raises:
        TableError: a part would be empty.
    """
    if config.split == "kfold":
        return _kfold_split(labels, task, config, seed)
    if config.split is None and labels.has_splits:
        parts, notes = _column_split(labels, task)
    else:
        parts, notes = _drawn(labels, task, config, seed)
    parts, shared = _drop_leaked(parts, drop=config.drop_leaked)
    _check_not_empty(labels.path, parts)
    table = SplitTable(path=labels.path, target=labels.target, splits=parts)
    return DataSplit(folds=[table], final=table, notes=notes, warnings=shared)


def _column_split(labels: LabelledTable, task: Task) -> tuple[Parts, list[str]]:
    parts: dict[Split, list[LabelledProtein]] = {part: [] for part in _PARTS}
    for protein in labels.proteins:
        parts[protein.split or "train"].append(protein)
    if parts["valid"]:
        return parts, []
    held_out = _hold_out(parts["train"], task)
    train = parts["train"]
    parts["valid"] = [protein for protein in train if protein.sequence in held_out]
    parts["train"] = [protein for protein in train if protein.sequence not in held_out]
    return parts, ["no validation part: a tenth of train is held out by sequence hash"]


def _hold_out(train: Sequence[LabelledProtein], task: Task) -> set[str]:
    """Choose sequences by hash, one at least, without which training still sees every class."""
    by_hash = sorted({protein.sequence for protein in train}, key=hash_fraction)
    chosen = {sequence for sequence in by_hash if hash_fraction(sequence) < HELD_OUT_FRACTION}
    if not chosen and len(by_hash) > 1:
        chosen = {by_hash[0]}
    known = _classes_of((protein for protein in train if protein.sequence not in chosen), task)
    return chosen - {protein.sequence for protein in train if not known.issuperset(label_set(protein, task))}


def _classes_of(proteins: Iterable[LabelledProtein], task: Task) -> set[str]:
    return set[str]().union(*(label_set(protein, task) for protein in proteins))


def _drop_leaked(parts: Parts, *, drop: bool) -> tuple[Parts, list[str]]:
    """Say how many test sequences were seen in training, or leave them out."""
    known = {protein.sequence for part in ("train", "valid") for protein in parts[part]}
    kept = [protein for protein in parts["test"] if protein.sequence not in known]
    shared = [protein.id for protein in parts["test"] if protein.sequence in known]
    if not shared:
        return parts, []
    which = f"{len(shared)} of {len(parts['test'])} test sequences also stand in train or valid ({shared[0]!r} is one)"
    if drop:
        return {**parts, "test": kept}, [f"{which}; they are left out"]
    return parts, [f"{which}; --drop-leaked leaves them out"]


def _check_not_empty(path: str, parts: Parts, needed: Sequence[Split] = _PARTS) -> None:
    for part in needed:
        if not parts[part]:
            raise TableError(path, f"there is no {part} part", _ADVICE)


# Drawn parts: copies of a sequence, and members of a cluster, are never parted.


def _drawn(labels: LabelledTable, task: Task, config: LabelTableConfig, seed: int) -> tuple[Parts, list[str]]:
    groups = _SequenceGroups(labels, config, seed)
    homes: dict[str, Split] = {}
    for part in ("test", "valid"):
        homes |= dict.fromkeys(groups.sample_fraction(without=homes.keys()), part)
    what = "no split column" if config.split is None else f"--split {config.split}"
    note = f"{what}: a tenth each is held out for valid and test {groups.how}"
    return groups.parts(homes, task), [note]


def _kfold_split(labels: LabelledTable, task: Task, config: LabelTableConfig, seed: int) -> DataSplit:
    groups = _SequenceGroups(labels, config, seed)
    emptiest = [(0, number) for number in range(NUM_FOLDS)]
    measured: list[set[str]] = [set() for _ in range(NUM_FOLDS)]
    for group in sorted(groups.in_order, key=lambda group: -groups.sizes[group]):
        filled, number = emptiest[0]
        heapq.heapreplace(emptiest, (filled + groups.sizes[group], number))
        measured[number].add(group)
    tables = []
    for fold in [*measured, None]:  # and the final one, in which nothing is measured
        tested = fold or set[str]()
        homes: dict[str, Split] = dict.fromkeys(tested, "test")
        homes |= dict.fromkeys(groups.sample_fraction(without=tested), "valid")
        parts = groups.parts(homes, task)
        _check_not_empty(labels.path, parts, ("train", "valid") if fold is None else _PARTS)
        tables.append(SplitTable(path=labels.path, target=labels.target, splits=parts))
    notes = [f"--split kfold: {NUM_FOLDS} folds {groups.how}; the model that is kept learns from all of them"]
    num_unmeasured = len(labels.proteins) - sum(len(table.splits["test"]) for table in tables[:-1])
    if num_unmeasured:
        notes.append(f"{num_unmeasured} proteins are never measured: no others have their classes to learn from")
    return DataSplit(folds=tables[:-1], final=tables[-1], notes=notes)


class _SequenceGroups:
    """Proteins that must not be parted: copies of a sequence, or clusters of similar ones.

    Args:
        labels: the table.
        config: which of the two.
        seed: of their order.

    Attributes:
        how: that is, in words.
        sizes: how many proteins are in each.
        in_order: all groups, shuffled by hash.
    """

    def __init__(self, labels: LabelledTable, config: LabelTableConfig, seed: int) -> None:
        self._proteins = labels.proteins
        self._group_of, self.how = _groups(labels, config)
        self.sizes = Counter(map(self._group_of, labels.proteins))
        self.in_order = sorted(self.sizes, key=lambda group: (hash_fraction(group, seed), group))

    def sample_fraction(self, *, without: Collection[str]) -> list[str]:
        """Choose groups until a tenth of all proteins is in them.

        A family larger than that is learned from: it would be all that is measured. Where nearly all are, the smallest
        ones have to do.
        """
        wanted = HELD_OUT_FRACTION * len(self._proteins)
        most = max(wanted, *sorted(self.sizes.values())[:2])
        chosen, filled = list[str](), 0
        for group in self.in_order:
            if filled < wanted and group not in without and self.sizes[group] <= most:
                chosen.append(group)
                filled += self.sizes[group]
        return chosen

    def parts(self, homes: Mapping[str, Split], task: Task) -> Parts:
        """Divide the proteins: as their groups' homes say, and all others into train.

        Groups of a class that the training part would never see come into it too.
        """
        homes = dict(homes)
        known = _classes_of((protein for protein in self._proteins if self._group_of(protein) not in homes), task)
        for protein in self._proteins:
            if not known.issuperset(label_set(protein, task)):
                homes.pop(self._group_of(protein), None)
        parts: dict[Split, list[LabelledProtein]] = {part: [] for part in _PARTS}
        for protein in self._proteins:
            parts[homes.get(self._group_of(protein), "train")].append(protein)
        return parts


def _groups(labels: LabelledTable, config: LabelTableConfig) -> tuple[Callable[[LabelledProtein], str], str]:
    """Say what must not be parted: clusters of similar sequences where that leaves something to draw from."""
    sequences = [protein.sequence for protein in labels.proteins]
    if config.split == "random":
        return lambda protein: protein.sequence, "by sequence hash; relatives may straddle"
    num_short = sum(len(sequence) < SHORTEST_COMPARED for sequence in sequences)
    short = f"; {num_short:,} proteins are too short for their 5-mers to tell" if num_short else ""
    representatives = dict(zip(sequences, greedy_clusters(sequences, config.cluster_identity), strict=True))
    most_common = Counter(representatives[sequence] for sequence in sequences).most_common(1)[0][1]
    if most_common <= len(sequences) * (1 - 2 * HELD_OUT_FRACTION) and len(set(representatives.values())) >= NUM_FOLDS:
        return (
            lambda protein: representatives[protein.sequence],
            f"by cluster ({len(set(representatives.values())):,} clusters of similar sequences{short})",
        )
    if config.split == "cluster":
        found = f"{most_common:,} of {len(sequences):,} proteins are in one cluster of similar ones"
        raise TableError(labels.path, found, "pass --split random, or a higher --cluster-identity")
    return lambda protein: protein.sequence, "by sequence hash, for nearly all proteins are relatives"
