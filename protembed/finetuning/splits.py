"""Train, valid and test splits of a labelled table: read from a column, random, by cluster, or in folds.

Clusters are read from a table, or found by the similarity of sequences, which is estimated from shared 5-mers. Drawn
splits never separate copies of a sequence, and, unless `--split random` is given, members of a cluster.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protembed.config.common import Task
from protembed.config.finetune import LabelTableConfig
from protembed.data.clusters import ClusterTable
from protembed.data.hashing import hash_fraction, hash_texts
from protembed.data.similarity import greedy_clusters
from protembed.errors import ConfigError, TableError
from protembed.finetuning.labels import LabelledProtein, LabelledTable, SplitTable
from protembed.finetuning.split_names import Split
from protembed.finetuning.targets import class_counts, label_set
from protembed.io.reading import display_name
from protembed.text import pluralize

# A substitution in the middle of a shorter sequence leaves so few 5-mers unchanged that it looks unrelated.
_MIN_COMPARED_RESIDUES = 30

_HELD_OUT_FRACTION = 0.1
_NUM_FOLDS = 5
# In larger clusters are too many proteins for the others to be held out.
_MAX_CLUSTER_FRACTION = 1 - 2 * _HELD_OUT_FRACTION
_SPLITS: Sequence[Split] = ("train", "valid", "test")


# Groups of sequences


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """The group of each sequence, a description of the groups, and warnings about them."""

    group_of: Mapping[str, str]
    description: str
    warnings: Sequence[str] = ()


def _groups_by_similarity(table: LabelledTable, config: LabelTableConfig) -> _Groups:
    """Group the sequences in clusters, or each alone if nearly all are in one cluster."""
    sequences = [protein.sequence for protein in table.proteins]
    alone = {sequence: sequence for sequence in sequences}
    if config.split == "random":
        return _Groups(group_of=alone, description="by sequence hash; similar sequences may be in different splits")
    num_short = sum(len(sequence) < _MIN_COMPARED_RESIDUES for sequence in sequences)
    short = f"; {num_short:,} proteins are too short to be compared by 5-mers" if num_short else ""
    clusters = greedy_clusters(sequences, config.cluster_identity)
    num_clusters, largest = len(set(clusters)), Counter(clusters).most_common(1)[0][1]
    if largest <= len(sequences) * _MAX_CLUSTER_FRACTION and num_clusters >= _NUM_FOLDS:
        description = f"by cluster ({num_clusters:,} clusters of similar sequences{short})"
        return _Groups(group_of=dict(zip(sequences, clusters, strict=True)), description=description)
    if config.split == "cluster":
        found = f"{largest:,} of {len(sequences):,} proteins are in one cluster of similar sequences"
        raise TableError(table.path, found, "pass `split` random, or a higher `cluster_identity`")
    return _Groups(group_of=alone, description="by sequence hash, because nearly all proteins are similar")


def _joined_by_copies(sequences: Sequence[str], keys: NDArray[np.uint64]) -> dict[str, str]:
    """Join the clusters that copies of a sequence are in, and name each group by its first sequence in the alphabet."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    row_of = {sequence: row for row, sequence in enumerate(sorted(set(sequences)))}
    _, columns = np.unique(keys, return_inverse=True)
    rows = [row_of[sequence] for sequence in sequences]
    size = len(row_of) + len(keys)
    edges = sparse.coo_array((np.ones(len(rows)), (rows, len(row_of) + columns)), shape=(size, size))
    groups = connected_components(edges, directed=False)[1][: len(row_of)].tolist()
    names = {group: sequence for sequence, group in reversed(list(zip(row_of, groups, strict=True)))}
    return {sequence: names[group] for sequence, group in zip(row_of, groups, strict=True)}


def _groups_of_table(table: LabelledTable, path: Path, column: str | None) -> _Groups:
    """Group the sequences as a table of clusters does."""
    sequences, clusters = [protein.sequence for protein in table.proteins], ClusterTable(path, column)
    keys = clusters.look_up([protein.id for protein in table.proteins], hash_texts(sequences))
    are_numbered = all(protein.id.isdigit() for protein in table.proteins)
    advice = "name the column of the proteins' identifiers with `id`; without one they are numbered"
    warnings = clusters.warnings("proteins", advice) if are_numbered else clusters.warnings("proteins")
    group_of = _joined_by_copies(sequences, keys)
    sizes = Counter(group_of[sequence] for sequence in sequences)
    if max(sizes.values()) > len(sequences) * _MAX_CLUSTER_FRACTION or len(sizes) < _NUM_FOLDS:
        found = f"{pluralize(len(sizes), 'cluster')}, the largest with {max(sizes.values()):,} of {len(sequences):,}"
        advice = "give a table of more and smaller clusters, or omit `clusters`"
        raise TableError(table.path, f"the proteins are in {found}", advice)
    description = f"by cluster ({len(sizes):,} clusters of {display_name(path)})"
    return _Groups(group_of=group_of, description=description, warnings=warnings)


class _SequenceGroups:
    """Groups of proteins that are kept in the same split: copies of a sequence, or clusters of similar sequences."""

    def __init__(self, table: LabelledTable, task: Task, config: LabelTableConfig, seed: int) -> None:
        self._table, self._task, self._are_listed = table, task, config.clusters is not None
        if config.clusters is None:
            groups = _groups_by_similarity(table, config)
        else:
            groups = _groups_of_table(table, config.clusters, config.cluster_column)
        self._group_of, self.description, self.warnings = groups.group_of, groups.description, groups.warnings
        self.sizes = Counter(self._group_of[protein.sequence] for protein in table.proteins)
        self.shuffled = sorted(self.sizes, key=lambda group: (hash_fraction(group, seed), group))

    def _sample_fraction(self, *, without: Collection[str] = ()) -> list[str]:
        """Choose groups until they hold a tenth of all proteins.

        A larger group stays in train, because it would be the whole sample. If nearly all groups are larger, the
        smallest ones are chosen.
        """
        target_size = _HELD_OUT_FRACTION * len(self._table.proteins)
        max_group_size = max(target_size, *sorted(self.sizes.values())[:2])
        chosen, size = list[str](), 0
        for group in self.shuffled:
            if size < target_size and group not in without and self.sizes[group] <= max_group_size:
                chosen.append(group)
                size += self.sizes[group]
        return chosen

    def hold_out(self, test: Collection[str] | None = None, required: Sequence[Split] = _SPLITS) -> SplitTable:
        """Hold out some groups, a tenth by default, for test and a tenth for valid; all others are in train.

        Groups of a class that training would not see are assigned to train, too.
        """
        tested = set(self._sample_fraction() if test is None else test)
        split_of: dict[str, Split] = dict.fromkeys(tested, "test")
        split_of |= dict.fromkeys(self._sample_fraction(without=tested), "valid")
        groups = [(protein, self._group_of[protein.sequence]) for protein in self._table.proteins]
        known = class_counts((protein for protein, group in groups if group not in split_of), self._task)
        for protein, group in groups:
            if label_set(protein, self._task) - known.keys():
                split_of.pop(group, None)
        splits = {
            split: [protein for protein, group in groups if split_of.get(group, "train") == split] for split in _SPLITS
        }
        are_clusters = len(self.sizes) < len(self._group_of)
        reason = (
            f", because it is drawn from {len(self.sizes):,} {'clusters of similar' if are_clusters else 'different'} "
            "sequences, and those with the only proteins of a class, or over a tenth of all proteins, stay in train"
        )
        advice = "add different proteins of each class"
        if are_clusters:
            advice += ", or omit `clusters`" if self._are_listed else ", or pass `split` random"
        return _split_table(self._table, splits, required, reason, advice)


# Splits


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """A labelled table, split for training and evaluation.

    Attributes:
        folds: Tables whose test splits are evaluated; a single one if there are no folds.
        final: Table that the final model is trained on; its test split is empty if every protein is tested in a fold.
        notes: Decisions that were made for the user, in sentences.
        warnings: Reasons why metrics may look better than they are, in sentences.
    """

    folds: Sequence[SplitTable]
    final: SplitTable
    notes: Sequence[str]
    warnings: Sequence[str] = ()


def _split_table(
    table: LabelledTable,
    splits: Mapping[Split, Sequence[LabelledProtein]],
    required: Sequence[Split] = _SPLITS,
    reason: str = "",
    advice: str = "add rows of that split",
) -> SplitTable:
    """Make a split table, and check that no required split is empty."""
    for split in required:
        if not splits[split]:
            raise TableError(table.path, f"the {split} split is empty{reason}", advice)
    return SplitTable(path=table.path, target=table.target, splits=splits)


def _hold_out(train: Sequence[LabelledProtein], task: Task) -> set[str]:
    """Choose sequences by hash, at least one, such that training still sees every class without them."""
    by_hash = sorted({protein.sequence for protein in train}, key=hash_fraction)
    chosen = {sequence for sequence in by_hash if hash_fraction(sequence) < _HELD_OUT_FRACTION}
    if not chosen and len(by_hash) > 1:
        chosen = {by_hash[0]}
    known = class_counts((protein for protein in train if protein.sequence not in chosen), task)
    return chosen - {protein.sequence for protein in train if label_set(protein, task) - known.keys()}


def _column_split(table: LabelledTable, task: Task, *, drop_leaked: bool) -> DataSplit:
    """Read the splits from their column; count the test sequences that are also in train or valid."""
    splits = {split: [row for row in table.proteins if (row.split or "train") == split] for split in _SPLITS}
    notes, warnings, train = list[str](), list[str](), splits["train"]
    if not splits["valid"]:
        held_out = _hold_out(train, task)
        splits["valid"] = [protein for protein in train if protein.sequence in held_out]
        splits["train"] = [protein for protein in train if protein.sequence not in held_out]
        notes.append("no validation split: a tenth of train is held out by sequence hash")
    trained = {protein.sequence for split in ("train", "valid") for protein in splits[split]}
    test = splits["test"]
    if leaked := [protein.id for protein in test if protein.sequence in trained]:
        found = f"{len(leaked)} of {len(test)} test sequences are also in train or valid (such as {leaked[0]!r})"
        warnings.append(f"{found}; " + ("they are left out" if drop_leaked else "--drop-leaked leaves them out"))
        if drop_leaked:
            splits["test"] = [protein for protein in test if protein.sequence not in trained]
    whole = _split_table(table, splits)
    return DataSplit(folds=[whole], final=whole, notes=notes, warnings=warnings)


def _drawn_split(groups: _SequenceGroups, reason: str) -> DataSplit:
    table = groups.hold_out()
    note = f"{reason}: a tenth each is held out for valid and test {groups.description}"
    return DataSplit(folds=[table], final=table, notes=[note], warnings=groups.warnings)


def _kfold_split(groups: _SequenceGroups) -> DataSplit:
    # A heap of (proteins, fold): each group goes to the smallest fold, the largest groups first.
    sizes = [(0, fold) for fold in range(_NUM_FOLDS)]
    tested: list[set[str]] = [set() for _ in range(_NUM_FOLDS)]
    for group in sorted(groups.shuffled, key=lambda group: -groups.sizes[group]):
        size, fold = sizes[0]
        heapq.heapreplace(sizes, (size + groups.sizes[group], fold))
        tested[fold].add(group)

    folds = list(map(groups.hold_out, tested))
    final = groups.hold_out((), ("train", "valid"))
    notes = [f"--split kfold: {_NUM_FOLDS} folds {groups.description}; the final model is trained on all of them"]
    num_untested = groups.sizes.total() - sum(len(table.splits["test"]) for table in folds)
    if num_untested:
        notes.append(f"{num_untested} proteins are never tested, because no others have their classes")
    return DataSplit(folds=folds, final=final, notes=notes, warnings=groups.warnings)


def split_table(labels: LabelledTable, task: Task, config: LabelTableConfig, seed: int) -> DataSplit:
    """Split a labelled table into train, valid and test.

    Args:
        labels: Labelled table.
        task: Task of the labels; drawn splits leave every class in training.
        config: Options of splitting; by default the split column is used if there is one, else clusters are drawn.
        seed: Seed of drawn splits.

    Raises:
        TableError: A split would be empty, or the table of clusters does not fit.
        ConfigError: There is a table of clusters, but the proteins are split already.
    """
    if config.split is None and labels.has_splits:
        if config.clusters is not None:
            expected = "the table has splits already: pass `split` cluster to draw others"
            raise ConfigError("clusters", str(config.clusters), expected)
        return _column_split(labels, task, drop_leaked=config.drop_leaked)
    groups = _SequenceGroups(labels, task, config, seed)
    if config.split == "kfold":
        return _kfold_split(groups)
    return _drawn_split(groups, "no split column" if config.split is None else f"--split {config.split}")
