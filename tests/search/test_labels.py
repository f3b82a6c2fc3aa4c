import pytest

from protembed.errors import ConfigError, TableError


@pytest.fixture
def database(store, draw):
    ids = ["sp|P1|A", "P2", "P3", "P4"]
    return store(draw(4), ["MKTAYIAKQRA", "MKTAYIAKQRC", "MKTAYIAKQRD", "MKTAYIAKQRE"], ids).path


@pytest.fixture
def find_labels(database, find, tmp_path):
    """Search all in all with a table of labels, and return the label of each target."""

    def search(content, **settings):
        table = tmp_path / "labels.csv"
        table.write_text(content)
        summary, rows = find(database, database, labels=table, **settings)
        return summary, {row["target"]: row["target_label"] for row in rows}

    return search


def test_labels_are_found_by_identifier_and_accession(find_labels):
    summary, labels = find_labels("entry,label\nP1,x\nP2,+ve\nP4,NaN\nP9,y\n")

    assert labels == {"sp|P1|A": "x", "P2": "+ve", "P3": "", "P4": ""}
    assert any("no label for 2 of 4 proteins" in warning for warning in summary.warnings)


def test_labels_are_found_by_sequence_without_identifiers(find_labels):
    _, labels = find_labels("sequence,label\nmktayiakqrc,b\nMKTAYIAKQRD*,c\n")

    assert labels == {"sp|P1|A": "", "P2": "b", "P3": "c", "P4": ""}


def test_columns_can_be_named(find_labels):
    _, labels = find_labels("code,place\nP3,nucleus\n", id="code", label_column="place")

    assert labels["P3"] == "nucleus"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("entry,place\nP1,x\n", "no label column"),
        ("place,label\nP1,x\n", "no id column"),
        ("entry,label\nP8,x\nP9,y\n", "none of 2 identifiers with a label"),
        ("entry,label\nP1,x\nP1,y\n", "line 3: 'P1' has the label 'y', and in a row before 'x'"),
    ],
)
def test_tables_without_labels_of_the_database_are_errors(find_labels, content, found):
    with pytest.raises(TableError, match=found):
        find_labels(content)


def test_columns_without_a_table_have_no_effect(database, find):
    from protembed.config.search import SearchOptions

    assert SearchOptions.from_values(label_column="place").without_effect() == [
        "`label_column` has no effect: it needs `labels`"
    ]
    with pytest.raises(ConfigError):
        SearchOptions.from_values(labels="")
