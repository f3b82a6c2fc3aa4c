from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from protembed.config.common import TASKS
from protembed.config.finetune import LabelTableConfig
from protembed.data.hashing import hash_fraction
from protembed.errors import ConfigError
from protembed.finetuning.splits import split_table

SPLITS = ("train", "valid", "test")
VALUES, CLASSES = TASKS["regression"], TASKS["classification"]
WAYS = (None, "random", "cluster", "kfold")


@pytest.fixture(scope="module")
def families(proteins, mutate):
    """Twenty proteins, each with two shorter relatives that are 95 % identical to it."""
    originals = [protein for protein in proteins if len(protein) > 70][:20]
    return [[protein, *(mutate(protein, 0.05, seed)[1:] for seed in range(2))] for protein in originals]


def members(families):
    return [member for family in families for member in family]


def ids(table):
    return {split: [protein.id for protein in table.splits[split]] for split in SPLITS}


def sizes(table):
    return {split: len(table.splits[split]) for split in SPLITS}


def drawn(labels, split=None, task=VALUES, seed=0, **options):
    """Divide, and list every table that comes of it."""
    division = split_table(labels, task, LabelTableConfig(split=split, **options), seed)
    return [*division.folds, division.final]


def are_parted(table, groups):
    """Tell whether two parts hold sequences of one group."""
    number = {sequence: row for row, group in enumerate(groups) for sequence in group}
    parts = [{number[protein.sequence] for protein in table.splits[split]} for split in SPLITS]
    return any(one & other for one, other in combinations(parts, 2))


# As the table says


def test_a_split_column_is_followed(make_labels, proteins):
    splits = ["test", "train", "valid", "train", "test", "train"]
    division = split_table(make_labels(proteins[:6], splits=splits), VALUES, LabelTableConfig(), seed=0)

    assert ids(division.final) == {"train": ["2", "4", "6"], "valid": ["3"], "test": ["1", "5"]}
    assert len(division.folds) == 1 and division.folds[0] is division.final
    assert (division.final.path, division.final.target) == ("labels.csv", "target")
    assert division.notes == []


def test_validation_proteins_of_flip_are_the_validation_part(read):
    header = "sequence,target,set,validation\n"
    labels = read(header + "MKT,1,train,False\nMKV,2,train,True\nMKA,3,train,\nMAY,4,test,False\n")

    (table, _) = drawn(labels)

    assert ids(table) == {"train": ["1", "3"], "valid": ["2"], "test": ["4"]}


def test_without_a_validation_part_a_tenth_of_train_is_held_out_by_hash(make_labels, proteins):
    labels = make_labels([*proteins, "MKT"], splits=["train"] * len(proteins) + ["test"])
    division = split_table(labels, VALUES, LabelTableConfig(), seed=0)

    held_out = [str(row) for row, protein in enumerate(proteins, start=1) if hash_fraction(protein) < 0.1]
    assert ids(division.final)["valid"] == held_out
    assert sizes(division.final) == {"train": 40 - len(held_out), "valid": len(held_out), "test": 1}
    assert division.notes == ["no validation split: a tenth of train is held out by sequence hash"]
    assert ids(drawn(labels, seed=1)[0]) == ids(division.final)


def test_classes_that_training_would_lose_are_not_held_out(make_labels, proteins):
    rare = min(proteins, key=hash_fraction)
    labels = make_labels(
        proteins,
        ["rare" if protein == rare else "usual" if row % 2 else "common" for row, protein in enumerate(proteins)],
        ["test" if row in (0, 1) and protein != rare else "train" for row, protein in enumerate(proteins)],
    )

    parts = split_table(labels, TASKS["classification"], LabelTableConfig(), seed=0).final.splits

    assert rare in {protein.sequence for protein in parts["train"]}
    assert parts["valid"]


def test_one_protein_at_least_is_held_out(make_labels, proteins):
    far = [protein for protein in proteins if hash_fraction(protein) > 0.3][:5]

    parts = split_table(
        make_labels(far, splits=["train"] * 4 + ["test"]), VALUES, LabelTableConfig(), seed=0
    ).final.splits

    assert [len(parts[split]) for split in ("train", "valid", "test")] == [3, 1, 1]


def test_a_wish_wins_over_the_split_column(make_labels, proteins):
    labels = make_labels(proteins, splits=["test"] * 20 + ["train"] * 20)

    assert sizes(drawn(labels, "random")[0]) == {"train": 32, "valid": 4, "test": 4}


def test_a_wish_and_a_split_column_contradict_each_other():
    for split in WAYS[1:]:
        with pytest.raises(ConfigError, match=f"--split is '{split}', but --split-column"):
            LabelTableConfig(split=split, split_column="set")
    assert LabelTableConfig(split_column="set").split is None


# Sequences that stand in several parts


def test_test_sequences_that_also_stand_in_train_or_valid_are_noted(make_labels):
    labels = make_labels(["MKT", "MKV", "MKT", "MKV", "MAY"], splits=["train", "valid", "test", "test", "test"])
    division = split_table(labels, VALUES, LabelTableConfig(), seed=0)

    assert ids(division.final)["test"] == ["3", "4", "5"]
    found = "2 of 3 test sequences are also in train or valid (such as '3')"
    assert division.warnings == [f"{found}; --drop-leaked leaves them out"]


def test_test_sequences_that_also_stand_in_train_or_valid_are_left_out_on_request(make_labels):
    labels = make_labels(["MKT", "MKV", "MKT", "MKV", "MAY"], splits=["train", "valid", "test", "test", "test"])
    division = split_table(labels, VALUES, LabelTableConfig(drop_leaked=True), seed=0)

    assert ids(division.final) == {"train": ["1"], "valid": ["2"], "test": ["5"]}
    assert division.warnings == ["2 of 3 test sequences are also in train or valid (such as '3'); they are left out"]


def test_copies_within_the_test_part_are_no_shared_sequences(make_labels):
    labels = make_labels(["MKT", "MKV", "MAY", "MAY"], splits=["train", "valid", "test", "test"])
    division = split_table(labels, VALUES, LabelTableConfig(drop_leaked=True), seed=0)

    assert ids(division.final)["test"] == ["3", "4"]
    assert division.warnings == []


# Drawn parts


@pytest.mark.parametrize("split", [None, "random", "cluster"])
def test_a_tenth_each_is_held_out(make_labels, proteins, split):
    table, final = drawn(make_labels(proteins), split)
    by_hash = sorted(range(40), key=lambda row: hash_fraction(proteins[row]))

    assert final is table
    assert ids(table) == {
        "train": [str(row + 1) for row in sorted(by_hash[8:])],
        "valid": [str(row + 1) for row in sorted(by_hash[4:8])],
        "test": [str(row + 1) for row in sorted(by_hash[:4])],
    }


@pytest.mark.parametrize("split", WAYS)
def test_copies_are_never_parted(make_labels, proteins, split):
    for seed in range(5):
        tables = drawn(make_labels(proteins * 3), split, seed=seed)
        assert all(sum(sizes(table).values()) == 120 for table in tables)
        assert not any(are_parted(table, [[protein] for protein in proteins]) for table in tables)


@pytest.mark.parametrize("split", [None, "cluster", "kfold"])
def test_members_of_a_cluster_are_never_parted(make_labels, families, split):
    for seed in range(5):
        tables = drawn(make_labels(members(families)), split, seed=seed)
        assert all(sum(sizes(table).values()) == 60 for table in tables)
        assert not any(are_parted(table, families) for table in tables)


def test_random_parts_part_relatives(make_labels, families):
    assert are_parted(drawn(make_labels(members(families)), "random")[0], families)


@pytest.mark.parametrize("split", WAYS)
def test_the_parts_are_the_same_whatever_the_order_of_the_rows(make_labels, families, split):
    sequences = members(families)
    shuffled = np.random.default_rng(0).permutation(sequences).tolist()

    tables, again = (
        [
            {part: {protein.sequence for protein in table.splits[part]} for part in SPLITS}
            for table in drawn(make_labels(order), split)
        ]
        for order in (sequences, shuffled)
    )

    assert tables == again


@pytest.mark.parametrize("split", WAYS)
def test_another_seed_draws_other_parts(make_labels, families, split):
    labels = make_labels(members(families))

    one, again, other = (ids(drawn(labels, split, seed=seed)[0]) for seed in (0, 0, 1))

    assert one == again
    assert one["test"] != other["test"] and one["valid"] != other["valid"]


@pytest.mark.parametrize("split", WAYS)
def test_training_sees_every_class(make_labels, proteins, split):
    labels = make_labels(proteins, ["rare" if row < 3 else "ab"[row % 2] for row in range(40)])

    for seed in range(8):
        for table in drawn(labels, split, CLASSES, seed):
            assert {protein.label for protein in table.splits["train"]} == {"a", "b", "rare"}


@pytest.mark.parametrize("split", [None, "cluster"])
def test_relatives_of_a_protein_of_a_rare_class_come_along_to_train(make_labels, families, split):
    labels = make_labels(members(families), ["rare" if row == 0 else "ab"[row % 2] for row in range(60)])

    for seed in range(20):
        (table, _) = drawn(labels, split, CLASSES, seed)
        assert "1" in ids(table)["train"]
        assert not are_parted(table, families)


def test_copies_of_a_protein_of_a_rare_class_come_along_to_train(make_labels, proteins):
    labels = make_labels(proteins * 2, ["rare" if row == 0 else "ab"[row % 2] for row in range(80)])

    for seed in range(20):
        assert not are_parted(drawn(labels, "random", CLASSES, seed)[0], [[protein] for protein in proteins])


@pytest.mark.parametrize("split", WAYS[:3])
def test_a_family_larger_than_a_part_is_learned_from(make_labels, proteins, mutate, split):
    family = [mutate(max(proteins, key=len), 0.05, seed) for seed in range(20)]

    for seed in range(10):
        (table, _) = drawn(make_labels([*proteins, *family]), split, seed=seed)
        if split != "random":
            assert set(family) <= {protein.sequence for protein in table.splits["train"]}
        assert sizes(table) == {"train": 48, "valid": 6, "test": 6}


def test_families_that_are_all_larger_than_a_tenth_are_divided_too(make_labels, proteins, mutate):
    originals = sorted(proteins, key=len)[-8:]
    family_of = [[protein, *(mutate(protein, 0.05, seed)[1:] for seed in range(4))] for protein in originals]

    (table, _) = drawn(make_labels(members(family_of)))

    assert not are_parted(table, family_of)
    assert 0 < len(table.splits["valid"]) <= 10 and 0 < len(table.splits["test"]) <= 10


def test_the_notes_say_how_the_parts_were_drawn(make_labels, families):
    labels = make_labels(members(families))

    def notes(split, **options):
        return split_table(labels, VALUES, LabelTableConfig(split=split, **options), seed=0).notes

    by_cluster = "a tenth each is held out for valid and test by cluster (20 clusters of similar sequences)"
    assert notes(None) == [f"no split column: {by_cluster}"]
    assert notes("cluster") == [f"--split cluster: {by_cluster}"]
    assert notes("cluster", cluster_identity=1.0)[0].count("(60 clusters")
    assert notes("random")[0].endswith("by sequence hash; similar sequences may be in different splits")
    assert notes("kfold")[0].startswith("--split kfold: 5 folds by cluster (20 clusters")


# Folds


def test_every_protein_is_measured_in_one_fold(make_labels, families):
    labels = make_labels(members(families))
    division = split_table(labels, VALUES, LabelTableConfig(split="kfold"), seed=0)

    assert Counter(name for fold in division.folds for name in ids(fold)["test"]) == Counter(map(str, range(1, 61)))
    assert [len(fold.splits["test"]) for fold in division.folds] == [12] * 5
    assert all(sum(sizes(fold).values()) == 60 for fold in division.folds)


def test_the_model_that_is_kept_learns_from_all_folds(make_labels, families):
    division = split_table(make_labels(members(families)), VALUES, LabelTableConfig(split="kfold"), seed=0)
    final = ids(division.final)

    assert final["test"] == []
    assert sorted(final["train"] + final["valid"], key=int) == [str(row) for row in range(1, 61)]
    assert len(final["valid"]) > 0


@pytest.mark.parametrize("num_proteins", [10, 20, 40])
def test_few_proteins_have_folds_too(make_labels, proteins, num_proteins):
    for seed in range(10):
        *folds, final = drawn(make_labels(proteins[:num_proteins]), "kfold", seed=seed)
        assert min(min(sizes(fold).values()) for fold in folds) > 0
        assert sizes(final)["valid"] > 0


def test_a_family_larger_than_a_part_is_never_the_validation_part_of_folds(make_labels, proteins, mutate):
    family = [mutate(max(proteins, key=len), 0.05, seed) for seed in range(30)]

    for seed in range(10):
        tables = drawn(make_labels([*proteins, *family]), "kfold", seed=seed)
        assert all(sizes(table)["valid"] <= 20 for table in tables)


# Relatives alone


@pytest.fixture(scope="module")
def relatives(proteins, mutate):
    """A deep mutational scan: fifty variants of one protein."""
    return [mutate(max(proteins, key=len), 0.01, seed) for seed in range(50)]


def test_a_table_of_relatives_is_divided_by_hash_and_says_so(make_labels, relatives):
    division = split_table(make_labels(relatives), VALUES, LabelTableConfig(), seed=0)

    assert sizes(division.final) == {"train": 40, "valid": 5, "test": 5}
    assert len(division.notes) == 1
    assert division.notes[0].endswith("by sequence hash, because nearly all proteins are similar")


def test_folds_of_relatives_are_divided_by_hash_and_say_so(make_labels, relatives):
    division = split_table(make_labels(relatives), VALUES, LabelTableConfig(split="kfold"), seed=0)

    assert [len(fold.splits["test"]) for fold in division.folds] == [10] * 5
    assert "by sequence hash, because nearly all proteins are similar" in division.notes[0]


def test_a_table_of_relatives_is_refused_where_clusters_were_wanted(make_labels, relatives, refused):
    with refused("50 of 50 proteins are in one cluster of similar sequences; pass --split random"):
        drawn(make_labels(relatives), "cluster")


def test_a_higher_similarity_parts_relatives(make_labels, relatives):
    tables = drawn(make_labels(relatives), "cluster", cluster_identity=1.0)

    assert sizes(tables[0]) == {"train": 40, "valid": 5, "test": 5}


# Tables that are refused


BAD = {
    "no training part": (["valid", "test"], {}, "the train split is empty"),
    "no test part": (["train"] * 20, {}, "the test split is empty"),
    "no validation part, and too few to draw one": (["train", "test"], {}, "the valid split is empty"),
    "a test part of shared sequences": (["train", "valid", "test"], {"drop_leaked": True}, "the test split is empty"),
    "too few to divide": ([None], {}, "split is empty"),
    "too few for folds": ([None] * 3, {"split": "kfold"}, "split is empty"),
}


@pytest.mark.parametrize(("splits", "options", "message"), BAD.values(), ids=BAD)
def test_a_table_that_cannot_be_divided_is_refused(make_labels, proteins, refused, splits, options, message):
    sequences = [proteins[0]] * 3 if "drop_leaked" in options else proteins[: len(splits)]

    with refused(message):
        drawn(make_labels(sequences, splits=splits), **options)
