import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from protembed.config.common import TASKS, Region
from protembed.data.hashing import KmerSample
from protembed.finetuning.labels import LabelledProtein, SplitTable
from protembed.finetuning.targets import TaskTable
from protembed.finetuning.training_data import describe_training
from protembed.inference.applicability import InputComparison, _fisher_p_value
from protembed.model.metadata import ModelMetadata

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def proteins_of(sequences):
    return [
        LabelledProtein(id=f"p{row}", sequence=sequence, label="ab"[row % 2], split=None, line=row + 2)
        for row, sequence in enumerate(sequences)
    ]


def table_of(train, test):
    parts = {"train": proteins_of(train), "valid": [], "test": proteins_of(test)}
    return SplitTable(path="x.csv", target="label", splits=parts)


def describe(train, test, task="classification"):
    table = table_of(train, test)
    return describe_training(TaskTable.from_table(table, TASKS[task]), [table])


def compare(data, hashes, sequences, *, trained=None, used=None):
    kmers = KmerSample(length=data.kmer_length, hashes=hashes.numpy())
    region = None if trained is None else str(trained)
    metadata = ModelMetadata(target="label", training_data=data, region=region)
    comparison = InputComparison(metadata, kmers, used)
    inputs = proteins_of(sequences)
    assert list(comparison.observe(inputs)) == inputs
    return comparison.warnings()


@pytest.fixture(scope="module")
def families():
    """Make forty pairs of proteins of 60 to 99 residues that begin with M and differ in every tenth residue."""
    rng, pairs = random.Random(0), []
    for length in range(60, 100):
        first = ["M", *rng.choices(LETTERS, k=length - 1)]
        second = [rng.choice(LETTERS) if index % 10 == 9 else letter for index, letter in enumerate(first)]
        pairs.append(("".join(first), "".join(second)))
    return pairs


@pytest.fixture(scope="module")
def train(families):
    return [first for first, _ in families]


@pytest.fixture(scope="module")
def test(families):
    return [second for _, second in families]


@pytest.fixture(scope="module")
def described(train, test):
    return describe(train, test)


def test_a_description_counts_the_training_proteins(described):
    data, hashes = described

    assert (data.num_proteins, data.lengths) == (40, (60, 62, 80, 97, 99))
    assert (data.shortest, data.longest, data.starts_with_met_fraction) == (60, 99, 1.0)
    assert (data.class_counts, data.value_range) == ({"a": 20, "b": 20}, None)
    assert (data.num_tested, data.num_tested_related) == (40, 40)
    assert all(low < high for low, high in pairwise(hashes.tolist()))


def test_a_description_counts_nonstandard_residues_and_has_the_range_of_values(train):
    table = table_of([*train, "MXXAA"], train[:2])
    table = replace(
        table,
        splits={
            split: [replace(protein, label=f"{protein.line / 2}") for protein in proteins]
            for split, proteins in table.splits.items()
        },
    )
    data, _ = describe_training(TaskTable.from_table(table, TASKS["regression"]), [table])

    assert (data.num_nonstandard_residues, data.highest_nonstandard_fraction) == (2, 0.4)
    assert (data.class_counts, data.value_range) == (None, (1.0, 21.0))


def test_classes_of_residues_are_counted_by_residue():
    table = table_of(["MKTAY", "AYIAK"], ["MKTAY"])
    labels = {"MKTAY": "HHHEE", "AYIAK": "EEEEE"}
    parts = {
        split: [replace(protein, label=labels[protein.sequence]) for protein in proteins]
        for split, proteins in table.splits.items()
    }
    table = replace(table, splits=parts)

    data, _ = describe_training(TaskTable.from_table(table, TASKS["residue-classification"]), [table])

    assert data.class_counts == {"E": 7, "H": 3}


def test_each_test_protein_is_compared_with_the_training_proteins_of_its_fold(families, train, test):
    final = table_of([*train, *test], [])
    folds = [table_of(train[:20], test[:20]), table_of(train[:20], test[20:])]

    data, _ = describe_training(TaskTable.from_table(final, TASKS["classification"]), folds)

    assert (data.num_proteins, data.num_tested, data.num_tested_related) == (80, 40, 20)


# Comparison


def test_the_models_test_proteins_give_no_warning(described, test):
    assert compare(*described, test) == compare(*described, test[::2]) == compare(*described, test[:1]) == []


def test_shuffled_proteins_are_distant(described, test):
    rng = random.Random(1)
    shuffled = ["M" + "".join(rng.sample(protein[1:], len(protein) - 1)) for protein in test]

    (sentence,) = compare(*described, shuffled)

    assert sentence == (
        f"only 0 of 40 proteins contain a k-mer ({described[0].kmer_length} residues) recorded from the model's "
        "training proteins, compared with 40 of 40 of its test proteins; its metrics may not hold for these proteins"
    )


def test_unrelated_proteins_give_no_warning_if_the_test_proteins_were_unrelated_too(train):
    rng = random.Random(2)
    unrelated = ["M" + "".join(rng.choices(LETTERS, k=79)) for _ in range(80)]

    assert compare(*describe(train, unrelated[:40]), unrelated[40:]) == []


def test_longer_proteins_are_counted(described, test):
    assert compare(*described, [*test[:38], *(protein + "A" * 60 for protein in test[38:])]) == [
        "2 of 40 proteins (such as 'p38') are longer than the longest that the model was trained and tested on "
        "(99 residues); it was never tested on such proteins"
    ]


@pytest.mark.parametrize(
    ("first", "advice"),
    [("M", ": use --region 1-50"), ("K", ", but on fragments of one length: select them with --region")],
)
def test_a_model_of_fragments_advises_to_select_such_fragments(train, test, first, advice):
    fragments, tested = ([first + protein[1:50] for protein in proteins] for proteins in (train, test))
    described = describe(fragments, tested)
    whole = [fragment + "A" * 100 for fragment in tested]

    (sentence,) = compare(*described, whole)

    assert sentence.startswith(
        "40 of 40 proteins are longer than the longest that the model was trained and tested on (50"
    )
    assert sentence.endswith(f"it was never tested on such proteins{advice}")
    assert compare(*described, [protein[:50] for protein in whole], used=Region(1, 50)) == []


def test_using_another_region_than_in_training_warns(described, test):
    (sentence,) = compare(*described, test, trained=Region(1, 99), used=None)

    assert sentence == (
        "the model was trained on residues 1-99 of each protein, but is applied to whole proteins; omit --region to "
        "use the same"
    )
    assert compare(*described, test, trained=Region(1, 99), used=Region(1, 99)) == []


def test_shorter_proteins_and_fragments_are_counted(described, test):
    fragments = [protein[20:] for protein in test]

    short, other_start = compare(*described, fragments)

    assert short.startswith("20 of 40 proteins (such as 'p0') are shorter than the shortest that the model was trained")
    assert short.endswith("(60 residues)")
    assert other_start.startswith(
        "36 of 40 proteins (such as 'p0') do not begin with M, but 100% of the model's training proteins do"
    )


def test_proteins_longer_than_most_training_proteins_are_counted(train, test):
    long = [protein + "A" * 900 for protein in test]

    (sentence,) = compare(*describe([*train, "M" * 2000], test), long)

    assert sentence == "40 of 40 proteins are longer than 95 % of the model's training proteins (98 residues)"


def test_proteins_shorter_than_most_training_proteins_are_counted(train, test):
    short = [protein[:50] for protein in test]

    (sentence,) = compare(*describe([*train, "MKTAY"], test), short)

    assert sentence == "40 of 40 proteins are shorter than 95 % of the model's training proteins (61 residues)"


def test_proteins_of_unknown_residues_are_counted(described, test):
    masked = ["M" + "X" * (len(protein) - 30) + protein[-29:] for protein in test[:3]]

    (sentence,) = compare(*described, [*test[3:], *masked])

    assert sentence.startswith(
        "3 of 40 proteins (such as 'p37') have more than 10% X or other letters that are not one of the 20 amino acids"
    )


def test_an_empty_input_and_a_pretrained_model_give_no_warning(described, test):
    assert compare(*described, []) == []
    pretrained = InputComparison(ModelMetadata(), kmers=None, used_region=None)
    list(pretrained.observe(proteins_of(test)))
    assert pretrained.warnings() == []


def test_a_model_without_recorded_training_proteins_warns(test):
    unknown = InputComparison(ModelMetadata(target="label"), kmers=None, used_region=None)
    list(unknown.observe(proteins_of(test)))

    (sentence,) = unknown.warnings()

    assert "does not record its training proteins" in sentence


@pytest.mark.parametrize(
    ("hits", "proteins", "other_hits", "others"), [(0, 3, 4, 5), (2, 6, 7, 9), (5, 5, 5, 5), (0, 4, 0, 7)]
)
def test_the_p_value_is_that_of_fishers_exact_test(hits, proteins, other_hits, others):
    total, all_hits = proteins + others, hits + other_hits
    ways = [
        math.comb(all_hits, number) * math.comb(total - all_hits, proteins - number)
        for number in range(hits + 1)
        if proteins - number <= total - all_hits
    ]

    assert _fisher_p_value(hits, proteins, other_hits, others) == pytest.approx(sum(ways) / math.comb(total, proteins))
