"""The parts of a labelled table: as its split column says, by sequence, by cluster of similar ones, or in folds."""

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from protembed.config.common import Task
from protembed.config.finetune import LabelsConfig
from protembed.data.hashing import hash_share
from protembed.data.labels import LabelledProtein, Labels, LabelTable, Split
from protembed.data.similarity import SHORTEST_COMPARED, greedy_clusters
from protembed.data.targets import classes_in
from protembed.errors import TableError

HELD_OUT_SHARE = 0.1
NUM_FOLDS = 5
_ADVICE = "add rows whose split says so, or, to be divided, more proteins: different ones, several of each class"
_PARTS: Sequence[Split] = ("train", "valid", "test")

Parts = Mapping[Split, Sequence[LabelledProtein]]


@dataclass(frozen=True, kw_only=True)
class Division:
    """A labelled table, divided for training and for measuring.

    Attributes:
        folds: in each of them the test part is measured; one alone, unless there are folds.
        final: the parts of which the model that is kept is made; the test part is empty where every protein was
            measured in a fold.
        notes: what was decided for the user, in sentences.
        warnings: what may make the figures look better than they are, in sentences.
    """

    folds: Sequence[LabelTable]
    final: LabelTable
    notes: Sequence[str]
    warnings: Sequence[str] = ()

    @property
    def is_in_folds(self) -> bool:
        """Whether every protein is measured in a fold."""
        return len(self.folds) > 1


def divide(labels: Labels, task: Task, config: LabelsConfig, seed: int) -> Division:
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
        return _in_folds(labels, task, config, seed)
    if config.split is None and labels.has_splits:
        parts, notes = _by_column(labels, task)
    else:
        parts, notes = _drawn(labels, task, config, seed)
    parts, shared = _without_shared(parts, drop=config.drop_shared)
    _refuse_empty(labels.path, parts)
    table = LabelTable(path=labels.path, target=labels.target, parts=parts)
    return Division(folds=[table], final=table, notes=notes, warnings=shared)


def _by_column(labels: Labels, task: Task) -> tuple[Parts, list[str]]:
    parts: dict[Split, list[LabelledProtein]] = {part: [] for part in _PARTS}
    for protein in labels.proteins:
        parts[protein.split or "train"].append(protein)
    if parts["valid"]:
        return parts, []
    held_out = _a_tenth_of(parts["train"], task)
    train = parts["train"]
    parts["valid"] = [protein for protein in train if protein.sequence in held_out]
    parts["train"] = [protein for protein in train if protein.sequence not in held_out]
    return parts, ["no validation part: a tenth of train is held out by sequence hash"]


def _a_tenth_of(train: Sequence[LabelledProtein], task: Task) -> set[str]:
    """Choose sequences by hash, one at least, without which training still sees every class."""
    by_hash = sorted({protein.sequence for protein in train}, key=hash_share)
    chosen = {sequence for sequence in by_hash if hash_share(sequence) < HELD_OUT_SHARE}
    if not chosen and len(by_hash) > 1:
        chosen = {by_hash[0]}
    known = _classes_of((protein for protein in train if protein.sequence not in chosen), task)
    return chosen - {protein.sequence for protein in train if not known.issuperset(classes_in(protein, task))}


def _classes_of(proteins: Iterable[LabelledProtein], task: Task) -> set[str]:
    return set[str]().union(*(classes_in(protein, task) for protein in proteins))


def _without_shared(parts: Parts, *, drop: bool) -> tuple[Parts, list[str]]:
    """Say how many test sequences were seen in training, or leave them out."""
    known = {protein.sequence for part in ("train", "valid") for protein in parts[part]}
    kept = [protein for protein in parts["test"] if protein.sequence not in known]
    shared = [protein.id for protein in parts["test"] if protein.sequence in known]
    if not shared:
        return parts, []
    which = f"{len(shared)} of {len(parts['test'])} test sequences also stand in train or valid ({shared[0]!r} is one)"
    if drop:
        return {**parts, "test": kept}, [f"{which}; they are left out"]
    return parts, [f"{which}; --drop-shared leaves them out"]


def _refuse_empty(path: str, parts: Parts, needed: Sequence[Split] = _PARTS) -> None:
    for part in needed:
        if not parts[part]:
            raise TableError(path, f"there is no {part} part", _ADVICE)


# Drawn parts: copies of a sequence, and members of a cluster, are never parted.


def _drawn(labels: Labels, task: Task, config: LabelsConfig, seed: int) -> tuple[Parts, list[str]]:
    groups = _Groups(labels, config, seed)
    homes: dict[str, Split] = {}
    for part in ("test", "valid"):
        homes |= dict.fromkeys(groups.about_a_tenth(without=homes.keys()), part)
    what = "no split column" if config.split is None else f"--split {config.split}"
    note = f"{what}: a tenth each is held out for valid and test {groups.how}"
    return groups.parts(homes, task), [note]


def _in_folds(labels: Labels, task: Task, config: LabelsConfig, seed: int) -> Division:
    groups = _Groups(labels, config, seed)
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
        homes |= dict.fromkeys(groups.about_a_tenth(without=tested), "valid")
        parts = groups.parts(homes, task)
        _refuse_empty(labels.path, parts, ("train", "valid") if fold is None else _PARTS)
        tables.append(LabelTable(path=labels.path, target=labels.target, parts=parts))
    notes = [f"--split kfold: {NUM_FOLDS} folds {groups.how}; the model that is kept learns from all of them"]
    num_unmeasured = len(labels.proteins) - sum(len(table.parts["test"]) for table in tables[:-1])
    if num_unmeasured:
        notes.append(f"{num_unmeasured} proteins are never measured: no others have their classes to learn from")
    return Division(folds=tables[:-1], final=tables[-1], notes=notes)


class _Groups:
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

    def __init__(self, labels: Labels, config: LabelsConfig, seed: int) -> None:
        self._proteins = labels.proteins
        self._group_of, self.how = _groups(labels, config)
        self.sizes = Counter(map(self._group_of, labels.proteins))
        self.in_order = sorted(self.sizes, key=lambda group: (hash_share(group, seed), group))

    def about_a_tenth(self, *, without: Collection[str]) -> list[str]:
        """Choose groups until a tenth of all proteins is in them.

        A family larger than that is learned from: it would be all that is measured. Where nearly all are, the smallest
        ones have to do.
        """
        wanted = HELD_OUT_SHARE * len(self._proteins)
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
            if not known.issuperset(classes_in(protein, task)):
                homes.pop(self._group_of(protein), None)
        parts: dict[Split, list[LabelledProtein]] = {part: [] for part in _PARTS}
        for protein in self._proteins:
            parts[homes.get(self._group_of(protein), "train")].append(protein)
        return parts


def _groups(labels: Labels, config: LabelsConfig) -> tuple[Callable[[LabelledProtein], str], str]:
    """Say what must not be parted: clusters of similar sequences where that leaves something to draw from."""
    sequences = [protein.sequence for protein in labels.proteins]
    if config.split == "random":
        return lambda protein: protein.sequence, "by sequence hash; relatives may straddle"
    num_short = sum(len(sequence) < SHORTEST_COMPARED for sequence in sequences)
    short = f"; {num_short:,} proteins are too short for their 5-mers to tell" if num_short else ""
    representatives = dict(zip(sequences, greedy_clusters(sequences, config.cluster_similarity), strict=True))
    most_common = Counter(representatives[sequence] for sequence in sequences).most_common(1)[0][1]
    if most_common <= len(sequences) * (1 - 2 * HELD_OUT_SHARE) and len(set(representatives.values())) >= NUM_FOLDS:
        return (
            lambda protein: representatives[protein.sequence],
            f"by cluster ({len(set(representatives.values())):,} clusters of similar sequences{short})",
        )
    if config.split == "cluster":
        found = f"{most_common:,} of {len(sequences):,} proteins are in one cluster of similar ones"
        raise TableError(labels.path, found, "pass --split random, or a higher --cluster-similarity")
    return lambda protein: protein.sequence, "by sequence hash, for nearly all proteins are relatives"
