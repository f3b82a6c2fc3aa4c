import csv

import numpy as np
import pytest

from protembed.errors import ConfigError, TableError
from protembed.search.neighbours import Neighbours
from protembed.search.transfer import KnownLabels, infer_kind

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
COLUMNS = (
    "query label reliability reliability_low reliability_high target cosine z_score kmer_label kmer_target "
    "kmer_similarity query_residues"
).split()


@pytest.fixture(scope="module")
def families():
    """Sixty random proteins of two classes, whose vectors show the class, and twenty relatives of the first ones."""
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list(LETTERS), 60)) for _ in range(60)]
    relatives = [sequence[:30] + "".join(rng.choice(list(LETTERS), 3)) + sequence[33:] for sequence in sequences[:20]]
    classes = [*(np.arange(60) % 2).tolist(), *(np.arange(20) % 2).tolist()]
    vectors = rng.normal(size=(80, 8)) + 3 * np.array(classes)[:, None] * np.eye(8)[0]
    return [*sequences, *relatives], classes, vectors


@pytest.fixture
def transfer(families, store, find, tmp_path):
    """Transfer labels of sixty proteins to twenty relatives of theirs, and read the table."""

    def run(label_of=lambda index, number: "ab"[number], **settings):
        sequences, classes, vectors = families
        fasta, table = tmp_path / "all.fasta", tmp_path / "labels.csv"
        fasta.write_text("".join(f">p{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
        rows = "".join(f"p{index},{label_of(index, number)}\n" for index, number in enumerate(classes[:60]))
        table.write_text(f"id,label\n{rows}")
        names = [f"p{number}" for number in range(80)]
        database = store(vectors[:60], sequences[:60], names[:60], name="database").path
        queries = store(vectors[60:], sequences[60:], names[60:], name="queries").path
        settings = {"sequences": [fasta]} | settings
        return find(queries, database, labels=table, transfer=True, **settings)

    return run


def neighbours_of(rows, z_scores):
    values = np.array(z_scores, float)
    return Neighbours(np.array(rows), values / 10, None, values)


def known(labels, kind=None):
    texts = list(dict.fromkeys(labels))
    return KnownLabels.make(texts, np.array([texts.index(label) for label in labels]), kind, "labels.csv")


# Votes


def test_near_neighbours_count_more_than_several_far_ones():
    guesses, features = known(["a", "b", "b"]).transfer(neighbours_of([[0, 1, 2]], [[5.0, 3.0, 3.0]]), 0.0)

    share = 1 / (1 + 2 * np.exp(-2))
    assert guesses.labels.tolist() == [[True, False]]
    assert features[0, :2] == pytest.approx([np.log((3 * share + 0.5) / (3 * (1 - share) + 0.5)), 5.0])


def test_missing_neighbours_do_not_vote():
    labels = known(["a", "b"])

    guesses, _ = labels.transfer(neighbours_of([[1, -1], [-1, -1]], [[0.0, 9.0], [0.0, 0.0]]), 0.0)

    assert [labels.text(guesses, row) for row in range(2)] == ["b", "a"]


def test_several_labels_are_those_above_the_threshold_and_at_least_one():
    labels = known(["a;b", "b", "c"])
    neighbours = neighbours_of([[0, 1, 2]], [[1.0, 1.0, 1.0]])

    assert labels.text(labels.transfer(neighbours, 0.3)[0], 0) == "a;b;c"
    assert labels.text(labels.transfer(neighbours, 0.9)[0], 0) == "b"


def test_values_are_averaged():
    labels = known(["0.5", "1.5", "9"])

    guesses, features = labels.transfer(neighbours_of([[0, 1]], [[2.0, 2.0]]), 0.0)

    assert guesses.values.tolist() == [1.0]
    assert features[0] == pytest.approx([0.5 / np.std([0.5, 1.5, 9]), 2.0])


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["a", "b"], "class"),
        (["1", "0"], "class"),
        (["1", "b", "0.5"], "class"),
        (["a;b", "c"], "labels"),
        (["0.5", "1"], "value"),
        (list(map(str, range(21))), "value"),
        (list(map(str, range(20))), "class"),
    ],
)
def test_the_kind_of_labels_is_inferred(labels, kind):
    assert infer_kind(labels) == kind


def test_right_labels_and_f1_are_those_of_sets():
    labels = known(["a;b", "a;c", "c"])
    guesses, truth = labels.of(np.array([0, 1])), labels.of(np.array([1, 2]))

    assert labels.right(guesses, truth).tolist() == [0.5, 0.5]
    assert labels.quality(guesses, truth) == pytest.approx([0.5, 2 / 3])


# The table


def test_labels_are_transferred_with_their_reliability(transfer, families):
    summary, rows = transfer()

    classes = ["ab"[number] for number in families[1][60:]]
    assert list(rows[0]) == COLUMNS
    assert [row["query"] for row in rows] == [f"p{number}" for number in range(60, 80)]
    assert np.mean([row["label"] == label for row, label in zip(rows, classes, strict=True)]) >= 0.9
    for row in rows:
        low, value, high = (float(row[name]) for name in ("reliability_low", "reliability", "reliability_high"))
        assert 0 <= low <= value <= high <= 1
    assert summary.measured["vectors"]["value"] > 0.8
    assert summary.measured["calibration_error"] < 0.2
    assert (summary.measured["num_proteins"], summary.measured["num_clusters"]) == (60, 60)


def test_the_label_of_the_nearest_protein_by_kmers_stands_beside(transfer, families):
    _, rows = transfer()

    assert [row["kmer_target"] for row in rows] == [f"p{number}" for number in range(20)]
    assert [row["kmer_label"] for row in rows] == ["ab"[number] for number in families[1][:20]]
    assert all(float(row["kmer_similarity"]) > 0.9 for row in rows)


def test_vectors_that_show_the_class_are_better_than_kmers_of_unrelated_proteins(transfer):
    summary, _ = transfer()

    assert summary.measured["gain"]["low"] > 0
    assert "vectors are better than k-mers" in summary.findings[1]


def test_vectors_that_show_nothing_add_nothing_to_kmers(transfer):
    rng = np.random.default_rng(1)
    summary, _ = transfer(lambda index, number: "ab"[rng.integers(2)])

    assert summary.measured["gain"]["low"] < 0 < summary.measured["gain"]["high"]
    assert "vectors add nothing to k-mers on this database" in summary.findings[1]


def test_members_of_a_cluster_are_left_out_together(families, store, find, tmp_path):
    sequences, _, vectors = families
    fasta, table = tmp_path / "all.fasta", tmp_path / "labels.csv"
    fasta.write_text("".join(f">p{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    pairs = [number % 60 for number in range(80)]
    table.write_text("id,label\n" + "".join(f"p{number},family{pair}\n" for number, pair in enumerate(pairs)))
    close = vectors[pairs] + 0.01
    database = store(close, sequences, [f"p{number}" for number in range(80)]).path

    summary, rows = find(database, database, labels=table, transfer=True, sequences=[fasta], num_neighbours=1)

    assert summary.measured["num_clusters"] == 60
    assert summary.measured["vectors"]["value"] == 0.0  # without its cluster no protein has its family's label
    found = {row["query"]: row["label"] for row in rows}
    assert all(found[f"p{number}"] == f"family{number}" for number in range(20))  # from the relative, not from itself


def test_values_have_an_interval(transfer):
    summary, rows = transfer(lambda index, number: 10 * number + index / 100)

    assert [float(row["value_low"]) < float(row["label"]) < float(row["value_high"]) for row in rows] == [True] * 20
    assert summary.measured["label_kind"] == "value"
    assert "mean absolute error" in summary.findings[0]


def test_several_labels_are_joined_by_semicolons(transfer):
    summary, rows = transfer(lambda index, number: "cell;" + "ab"[number])

    assert {name for row in rows for name in row["label"].split(";")} == {"cell", "a", "b"}
    assert all(row["label"].startswith("cell;") for row in rows)
    assert 0 < summary.measured["threshold"] < 1
    assert summary.measured["vectors"]["value"] > 0.8


def test_all_against_all_labels_every_protein_by_others(transfer, families, store, tmp_path, find):
    transfer()
    sequences, _, vectors = families
    every = store(vectors, sequences, [f"p{number}" for number in range(80)], name="every").path

    files = {"labels": tmp_path / "labels.csv", "sequences": [tmp_path / "all.fasta"]}
    _, rows = find(every, every, output="all.tsv", transfer=True, **files)

    assert len(rows) == 80
    assert all(row["query"] != row["target"] and row["query"] != row["kmer_target"] for row in rows)
    assert {row["target"] for row in rows} <= {f"p{number}" for number in range(60)}


def test_a_transferred_label_is_escaped_only_where_a_spreadsheet_would_interpret_it(transfer, tmp_path):
    transfer(lambda index, number: ["+ve", "=cmd()"][number])

    with open(tmp_path / "hits.tsv", newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream, delimiter="\t")} == {"+ve", "'=cmd()"}


# Errors


def test_transfer_needs_labels_sequences_and_enough_of_them(transfer, families, store, find, tmp_path):
    with pytest.raises(ConfigError, match="it needs a table"):
        find("a.npy", "b.npy", transfer=True)
    with pytest.raises(ConfigError, match="it needs the sequences of the database"):
        transfer(sequences=[])
    sequences, _, vectors = families
    few = store(vectors[:5], sequences[:5], [f"p{number}" for number in range(5)], name="few").path
    with pytest.raises(TableError, match="5 proteins of the database with a label are in 5 clusters"):
        find(few, few, labels=tmp_path / "labels.csv", transfer=True, sequences=[tmp_path / "all.fasta"])


def test_names_are_no_values(transfer):
    with pytest.raises(TableError, match="the label 'a' is no number"):
        transfer(label_kind="value")
