from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.config.finetune import LabelTableConfig
from protembed.data.hashing import hash_fraction
from protembed.errors import ConfigError, TableError
from protembed.finetuning.splits import split_table

SPLITS = ("train", "valid", "test")
VALUES, CLASSES = TASKS["regression"], TASKS["classification"]
SPLIT_OPTIONS = (None, "random", "cluster", "kfold")


@pytest.fixture(scope="module")
def families(proteins, mutate):
    """Twenty proteins, each with two shorter sequences that are 95 % identical to it."""
    originals = [protein for protein in proteins if len(protein) > 70][:20]
    return [[protein, *(mutate(protein, 0.05, seed)[1:] for seed in range(2))] for protein in originals]


def members(families):
    return [member for family in families for member in family]


def ids(table):
    return {split: [protein.id for protein in table.splits[split]] for split in SPLITS}


def sizes(table):
    return {split: len(table.splits[split]) for split in SPLITS}


def drawn(labels, split=None, task=VALUES, seed=0, **options):
    """Split, and return the tables of all folds and the final one."""
    data_split = split_table(labels, task, LabelTableConfig(split=split, **options), seed)
    return [*data_split.folds, data_split.final]


def are_separated(table, groups):
    """Return whether two splits hold sequences of one group."""
    number = {sequence: row for row, group in enumerate(groups) for sequence in group}
    groups_of_splits = [{number[protein.sequence] for protein in table.splits[split]} for split in SPLITS]
    return any(first & second for first, second in combinations(groups_of_splits, 2))


# Splits of the table


def test_the_split_column_assigns_proteins_to_splits(make_labels, proteins):
    splits = ["test", "train", "valid", "train", "test", "train"]
    data_split = split_table(make_labels(proteins[:6], splits=splits), VALUES, LabelTableConfig(), seed=0)

    assert ids(data_split.final) == {"train": ["2", "4", "6"], "valid": ["3"], "test": ["1", "5"]}
    assert len(data_split.folds) == 1 and data_split.folds[0] is data_split.final
    assert (data_split.final.path, data_split.final.target) == ("labels.csv", "target")
    assert data_split.notes == []


def test_validation_proteins_of_flip_are_the_valid_split(read_labelled):
    header = "sequence,target,set,validation\n"
    labels = read_labelled(header + "MKT,1,train,False\nMKV,2,train,True\nMKA,3,train,\nMAY,4,test,False\n")

    (table, _) = drawn(labels)

    assert ids(table) == {"train": ["1", "3"], "valid": ["2"], "test": ["4"]}


def test_without_a_valid_split_a_tenth_of_train_is_held_out_by_hash(make_labels, proteins):
    labels = make_labels([*proteins, "MKT"], splits=["train"] * len(proteins) + ["test"])
    data_split = split_table(labels, VALUES, LabelTableConfig(), seed=0)

    held_out = [str(row) for row, protein in enumerate(proteins, start=1) if hash_fraction(protein) < 0.1]
    assert ids(data_split.final)["valid"] == held_out
    assert sizes(data_split.final) == {"train": 40 - len(held_out), "valid": len(held_out), "test": 1}
    assert data_split.notes == ["no validation split: a tenth of train is held out by sequence hash"]
    assert ids(drawn(labels, seed=1)[0]) == ids(data_split.final)


def test_the_only_protein_of_a_class_is_not_held_out(make_labels, proteins):
    rare = min(proteins, key=hash_fraction)
    labels = make_labels(
        proteins,
        ["rare" if protein == rare else "usual" if row % 2 else "common" for row, protein in enumerate(proteins)],
        ["test" if row in (0, 1) and protein != rare else "train" for row, protein in enumerate(proteins)],
    )

    splits = split_table(labels, TASKS["classification"], LabelTableConfig(), seed=0).final.splits

    assert rare in {protein.sequence for protein in splits["train"]}
    assert splits["valid"]


def test_at_least_one_protein_is_held_out(make_labels, proteins):
    far = [protein for protein in proteins if hash_fraction(protein) > 0.3][:5]

    table, _ = drawn(make_labels(far, splits=["train"] * 4 + ["test"]))

    assert sizes(table) == {"train": 3, "valid": 1, "test": 1}


def test_the_split_option_overrides_the_split_column(make_labels, proteins):
    labels = make_labels(proteins, splits=["test"] * 20 + ["train"] * 20)

    assert sizes(drawn(labels, "random")[0]) == {"train": 32, "valid": 4, "test": 4}


def test_the_split_option_and_a_named_split_column_contradict_each_other():
    for split in SPLIT_OPTIONS[1:]:
        with pytest.raises(ConfigError, match=f"split is '{split}', but `split_column`"):
            LabelTableConfig(split=split, split_column="set")
    assert LabelTableConfig(split_column="set").split is None


# Leaked test sequences


def test_leaked_test_sequences_give_a_warning(make_labels):
    labels = make_labels(["MKT", "MKV", "MKT", "MKV", "MAY"], splits=["train", "valid", "test", "test", "test"])
    data_split = split_table(labels, VALUES, LabelTableConfig(), seed=0)

    assert ids(data_split.final)["test"] == ["3", "4", "5"]
    found = "2 of 3 test sequences are also in train or valid (such as '3')"
    assert data_split.warnings == [f"{found}; --drop-leaked leaves them out"]


def test_leaked_test_sequences_are_dropped_on_request(make_labels):
    labels = make_labels(["MKT", "MKV", "MKT", "MKV", "MAY"], splits=["train", "valid", "test", "test", "test"])
    data_split = split_table(labels, VALUES, LabelTableConfig(drop_leaked=True), seed=0)

    assert ids(data_split.final) == {"train": ["1"], "valid": ["2"], "test": ["5"]}
    assert data_split.warnings == ["2 of 3 test sequences are also in train or valid (such as '3'); they are left out"]


def test_copies_within_the_test_split_are_not_leaked(make_labels):
    labels = make_labels(["MKT", "MKV", "MAY", "MAY"], splits=["train", "valid", "test", "test"])
    data_split = split_table(labels, VALUES, LabelTableConfig(drop_leaked=True), seed=0)

    assert ids(data_split.final)["test"] == ["3", "4"]
    assert data_split.warnings == []


# Drawn splits


@pytest.mark.parametrize("split", [None, "random", "cluster"])
def test_a_tenth_each_is_drawn_for_valid_and_test(make_labels, proteins, split):
    table, final = drawn(make_labels(proteins), split)
    by_hash = sorted(range(40), key=lambda row: hash_fraction(proteins[row]))

    assert final is table
    assert ids(table) == {
        "train": [str(row + 1) for row in sorted(by_hash[8:])],
        "valid": [str(row + 1) for row in sorted(by_hash[4:8])],
        "test": [str(row + 1) for row in sorted(by_hash[:4])],
    }


@pytest.mark.parametrize("split", SPLIT_OPTIONS)
def test_copies_are_never_separated(make_labels, proteins, split):
    for seed in range(5):
        tables = drawn(make_labels(proteins * 3), split, seed=seed)
        assert all(sum(sizes(table).values()) == 120 for table in tables)
        assert not any(are_separated(table, [[protein] for protein in proteins]) for table in tables)


@pytest.mark.parametrize("split", [None, "cluster", "kfold"])
def test_members_of_a_cluster_are_never_separated(make_labels, families, split):
    for seed in range(5):
        tables = drawn(make_labels(members(families)), split, seed=seed)
        assert all(sum(sizes(table).values()) == 60 for table in tables)
        assert not any(are_separated(table, families) for table in tables)


def test_random_splits_separate_similar_sequences(make_labels, families):
    assert are_separated(drawn(make_labels(members(families)), "random")[0], families)


@pytest.mark.parametrize("split", SPLIT_OPTIONS)
def test_drawn_splits_do_not_depend_on_the_order_of_the_rows(make_labels, families, split):
    sequences = members(families)
    shuffled = np.random.default_rng(0).permutation(sequences).tolist()

    tables, again = (
        [
            {name: {protein.sequence for protein in table.splits[name]} for name in SPLITS}
            for table in drawn(make_labels(order), split)
        ]
        for order in (sequences, shuffled)
    )

    assert tables == again


@pytest.mark.parametrize("split", SPLIT_OPTIONS)
def test_another_seed_draws_other_splits(make_labels, families, split):
    labels = make_labels(members(families))

    first, again, reseeded = (ids(drawn(labels, split, seed=seed)[0]) for seed in (0, 0, 1))

    assert first == again
    assert first["test"] != reseeded["test"] and first["valid"] != reseeded["valid"]


@pytest.mark.parametrize("split", SPLIT_OPTIONS)
def test_training_sees_every_class(make_labels, proteins, split):
    labels = make_labels(proteins, ["rare" if row < 3 else "ab"[row % 2] for row in range(40)])

    for seed in range(8):
        for table in drawn(labels, split, CLASSES, seed):
            assert {protein.label for protein in table.splits["train"]} == {"a", "b", "rare"}


@pytest.mark.parametrize("split", [None, "cluster"])
def test_the_cluster_of_a_rare_class_is_assigned_to_train(make_labels, families, split):
    labels = make_labels(members(families), ["rare" if row == 0 else "ab"[row % 2] for row in range(60)])

    for seed in range(20):
        (table, _) = drawn(labels, split, CLASSES, seed)
        assert "1" in ids(table)["train"]
        assert not are_separated(table, families)


def test_copies_of_a_protein_of_a_rare_class_are_assigned_to_train(make_labels, proteins):
    labels = make_labels(proteins * 2, ["rare" if row == 0 else "ab"[row % 2] for row in range(80)])

    for seed in range(20):
        assert not are_separated(drawn(labels, "random", CLASSES, seed)[0], [[protein] for protein in proteins])


@pytest.mark.parametrize("split", SPLIT_OPTIONS[:3])
def test_a_cluster_larger_than_a_tenth_stays_in_train(make_labels, proteins, mutate, split):
    family = [mutate(max(proteins, key=len), 0.05, seed) for seed in range(20)]

    for seed in range(10):
        (table, _) = drawn(make_labels([*proteins, *family]), split, seed=seed)
        if split != "random":
            assert set(family) <= {protein.sequence for protein in table.splits["train"]}
        assert sizes(table) == {"train": 48, "valid": 6, "test": 6}


def test_clusters_that_are_all_larger_than_a_tenth_are_held_out_whole(make_labels, proteins, mutate):
    originals = sorted(proteins, key=len)[-8:]
    family_of = [[protein, *(mutate(protein, 0.05, seed)[1:] for seed in range(4))] for protein in originals]

    (table, _) = drawn(make_labels(members(family_of)))

    assert not are_separated(table, family_of)
    assert 0 < len(table.splits["valid"]) <= 10 and 0 < len(table.splits["test"]) <= 10


def test_large_clusters_of_similar_proteins_leave_no_valid_split_and_the_error_says_why(make_labels, proteins, mutate):
    originals = sorted(proteins, key=len)[-6:]
    family_of = [[protein, *(mutate(protein, 0.05, seed)[1:] for seed in range(9))] for protein in originals[2:]]

    with pytest.raises(TableError) as caught:
        split_table(make_labels([*originals[:2], *members(family_of)]), VALUES, LabelTableConfig(), seed=0)

    assert str(caught.value) == (
        "labels.csv: the valid split is empty, because it is drawn from 6 clusters of similar sequences, and those "
        "with the only proteins of a class, or over a tenth of all proteins, stay in train; add different proteins of "
        "each class, or pass `split` random"
    )


def test_the_notes_describe_how_splits_were_drawn(make_labels, families):
    labels = make_labels(members(families))

    def notes(split, **options):
        return split_table(labels, VALUES, LabelTableConfig(split=split, **options), seed=0).notes

    by_cluster = "a tenth each is held out for valid and test by cluster (20 clusters of similar sequences)"
    assert notes(None) == [f"no split column: {by_cluster}"]
    assert notes("cluster") == [f"--split cluster: {by_cluster}"]
    assert notes("cluster", cluster_identity=1.0)[0].count("(60 clusters")
    assert notes("random")[0].endswith("by sequence hash; similar sequences may be in different splits")
    assert notes("kfold")[0].startswith("--split kfold: 5 folds by cluster (20 clusters")


# Clusters of a table


@pytest.fixture
def write_clusters(tmp_path):
    """Write a table of the cluster of each protein, whose identifiers are numbers from 1."""

    def write(clusters, header="id\tcluster"):
        path = tmp_path / "clusters.tsv"
        path.write_text("\n".join([header, *(f"{row}\t{name}" for row, name in clusters.items())]) + "\n")
        return path

    return write


@pytest.mark.parametrize("split", [None, "cluster", "kfold"])
def test_members_of_a_cluster_of_the_table_are_in_one_split(make_labels, proteins, write_clusters, split):
    clusters = {row: f"c{row % 10}" for row in range(1, 41)}
    groups = [[protein for row, protein in enumerate(proteins, start=1) if row % 10 == name] for name in range(10)]

    for seed in range(5):
        tables = drawn(make_labels(proteins), split, seed=seed, clusters=write_clusters(clusters))
        assert not any(are_separated(table, groups) for table in tables)
        assert all(sizes(table)["valid"] == 4 for table in tables)


def test_the_note_names_the_table_of_clusters(make_labels, proteins, write_clusters):
    path = write_clusters({row: f"c{row % 10}" for row in range(1, 41)})

    data_split = split_table(make_labels(proteins), VALUES, LabelTableConfig(clusters=path), seed=0)

    assert data_split.notes[0].endswith(f"valid and test by cluster (10 clusters of {path})")
    assert data_split.warnings == []


def test_copies_of_a_sequence_join_their_clusters(make_labels, proteins, write_clusters):
    sequences = [*proteins[:20], proteins[0]]
    clusters = {**{row: f"c{row}" for row in range(1, 21)}, 2: "c1", 21: "c3"}

    for seed in range(20):
        table, _ = drawn(make_labels(sequences), seed=seed, clusters=write_clusters(clusters))
        assert not are_separated(table, [proteins[:3], *([protein] for protein in proteins[3:20])])


def test_splits_by_a_table_of_clusters_do_not_depend_on_the_order_of_rows(make_labels, proteins, write_clusters):
    rows = list(range(1, 41))
    path = write_clusters({row: f"c{row % 10}" for row in rows})
    labels = make_labels(proteins)

    forward, _ = drawn(labels, clusters=path)
    backward, _ = drawn(replace(labels, proteins=labels.proteins[::-1]), clusters=path)

    assert {split: set(names) for split, names in ids(forward).items()} == {
        split: set(names) for split, names in ids(backward).items()
    }


def test_proteins_without_a_cluster_in_the_table_are_separate_with_a_warning(make_labels, proteins, write_clusters):
    path = write_clusters({row: f"c{row % 10}" for row in range(1, 39)})

    data_split = split_table(make_labels(proteins), VALUES, LabelTableConfig(clusters=path), seed=0)

    assert "(12 clusters of " in data_split.notes[0]
    expected = f"2 of 40 proteins have no cluster in {path}; each becomes a separate cluster (the first: '39')"
    assert data_split.warnings == [expected]


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (
            {f"p{row}": "c" for row in range(40)},
            "none of the 40 proteins is in this table; the first is '1'; name the column of the proteins' identifiers",
        ),
        ({row: "all" for row in range(1, 36)}, "the proteins are in 6 clusters, the largest with 35 of 40"),
        ({row: f"c{row % 4}" for row in range(1, 41)}, "the proteins are in 4 clusters, the largest with 10 of 40"),
    ],
)
def test_a_table_of_clusters_that_leaves_nothing_to_hold_out_is_rejected(
    make_labels, proteins, write_clusters, clusters, message
):
    with pytest.raises(TableError, match=message):
        drawn(make_labels(proteins), clusters=write_clusters(clusters))


def test_clusters_of_a_table_with_splits_have_to_be_requested(make_labels, proteins, write_clusters):
    labels = make_labels(proteins, splits=["test"] * 20 + ["train"] * 20)
    path = write_clusters({row: f"c{row % 10}" for row in range(1, 41)})

    with pytest.raises(ConfigError, match="the table has splits already: pass `split` cluster to draw others"):
        drawn(labels, clusters=path)
    assert sizes(drawn(labels, "cluster", clusters=path)[0]) == {"train": 32, "valid": 4, "test": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": "c.tsv", "split": "random"}, "split is 'random', but `clusters` needs cluster or kfold"),
        ({"clusters": "c.tsv", "split_column": "set"}, "`split_column` already assigns each protein to a split"),
        ({"clusters": "c.tsv", "cluster_identity": 0.7}, "`clusters` says which proteins are similar"),
        ({"cluster_column": "c"}, "it needs a table: give `clusters` too"),
    ],
)
def test_options_that_contradict_a_table_of_clusters_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        LabelTableConfig(**options)


# Folds


def test_every_protein_is_tested_in_one_fold(make_labels, families):
    labels = make_labels(members(families))
    data_split = split_table(labels, VALUES, LabelTableConfig(split="kfold"), seed=0)

    assert Counter(name for fold in data_split.folds for name in ids(fold)["test"]) == Counter(map(str, range(1, 61)))
    assert [len(fold.splits["test"]) for fold in data_split.folds] == [12] * 5
    assert all(sum(sizes(fold).values()) == 60 for fold in data_split.folds)


def test_the_final_model_is_trained_on_all_folds(make_labels, families):
    data_split = split_table(make_labels(members(families)), VALUES, LabelTableConfig(split="kfold"), seed=0)
    final = ids(data_split.final)

    assert final["test"] == []
    assert sorted(final["train"] + final["valid"], key=int) == [str(row) for row in range(1, 61)]
    assert len(final["valid"]) > 0


@pytest.mark.parametrize("num_proteins", [10, 20, 40])
def test_folds_of_few_proteins_have_no_empty_split(make_labels, proteins, num_proteins):
    for seed in range(10):
        *folds, final = drawn(make_labels(proteins[:num_proteins]), "kfold", seed=seed)
        assert min(min(sizes(fold).values()) for fold in folds) > 0
        assert sizes(final)["valid"] > 0


def test_a_cluster_larger_than_a_tenth_is_never_the_valid_split_of_a_fold(make_labels, proteins, mutate):
    family = [mutate(max(proteins, key=len), 0.05, seed) for seed in range(30)]

    for seed in range(10):
        tables = drawn(make_labels([*proteins, *family]), "kfold", seed=seed)
        assert all(sizes(table)["valid"] <= 20 for table in tables)


# One cluster


@pytest.fixture(scope="module")
def variants(proteins, mutate):
    """A deep mutational scan: fifty variants of one protein."""
    return [mutate(max(proteins, key=len), 0.01, seed) for seed in range(50)]


def test_a_table_of_one_cluster_is_split_by_hash_with_a_note(make_labels, variants):
    data_split = split_table(make_labels(variants), VALUES, LabelTableConfig(), seed=0)

    assert sizes(data_split.final) == {"train": 40, "valid": 5, "test": 5}
    assert len(data_split.notes) == 1
    assert data_split.notes[0].endswith("by sequence hash, because nearly all proteins are similar")


def test_folds_of_one_cluster_are_split_by_hash_with_a_note(make_labels, variants):
    data_split = split_table(make_labels(variants), VALUES, LabelTableConfig(split="kfold"), seed=0)

    assert [len(fold.splits["test"]) for fold in data_split.folds] == [10] * 5
    assert "by sequence hash, because nearly all proteins are similar" in data_split.notes[0]


def test_a_table_of_one_cluster_is_rejected_if_clusters_were_requested(make_labels, variants, rejected):
    with rejected("50 of 50 proteins are in one cluster of similar sequences; pass `split` random"):
        drawn(make_labels(variants), "cluster")


def test_a_higher_identity_separates_similar_sequences(make_labels, variants):
    tables = drawn(make_labels(variants), "cluster", cluster_identity=1.0)

    assert sizes(tables[0]) == {"train": 40, "valid": 5, "test": 5}


# Errors


BAD = {
    "no train split": (["valid", "test"], {}, "the train split is empty"),
    "no test split": (["train"] * 20, {}, "the test split is empty"),
    "no valid split, and too few to draw one": (["train", "test"], {}, "the valid split is empty"),
    "a test split of leaked sequences": (["train", "valid", "test"], {"drop_leaked": True}, "the test split is empty"),
    "too few to draw splits": ([None], {}, "split is empty"),
    "too few for folds": ([None] * 3, {"split": "kfold"}, "split is empty"),
}


@pytest.mark.parametrize(("splits", "options", "message"), BAD.values(), ids=BAD)
def test_a_table_that_leaves_a_split_empty_is_rejected(make_labels, proteins, rejected, splits, options, message):
    sequences = [proteins[0]] * 3 if "drop_leaked" in options else proteins[: len(splits)]

    with rejected(message):
        drawn(make_labels(sequences, splits=splits), **options)
