import gzip

import numpy as np
import pytest

from protembed.data.clusters import ClusterSource, ClusterTable
from protembed.data.corpus import Corpus, build_corpora, corpus_writer, open_corpora
from protembed.errors import FormatError, InputNotFoundError, TableError


@pytest.fixture
def write_table(tmp_path):
    """Write a table of clusters, cells parted by spaces here, and name it as a source."""

    def write(*rows, column="cluster50"):
        path = tmp_path / "clusters.tsv"
        path.write_text("".join(row.replace(" ", "\t") + "\n" for row in rows))
        return ClusterSource(path=path, column=column)

    return write


@pytest.fixture
def cluster(tmp_path):
    """Store records, (identifier, sequence), and give back the corpus and the table's warnings."""

    def build(source, records):
        table = ClusterTable(source)
        with corpus_writer(tmp_path / "corpus", clusters=table) as writer:
            for record_id, sequence in records:
                writer.add(sequence, record_id)
        return Corpus(tmp_path / "corpus"), table.warnings()

    return build


def groups_of(corpus):
    """List the sequences of each cluster, as a set."""
    clusters = corpus.clusters
    starts, stops = clusters.offsets[:-1], clusters.offsets[1:]
    return [
        {corpus.sequence(row) for row in clusters.members[start:stop]}
        for start, stop in zip(starts, stops, strict=True)
    ]


def as_set(groups):
    return {frozenset(group) for group in groups}


def test_records_find_their_cluster_by_accession_in_all_styles_of_headers(cluster, write_table):
    source = write_table("accession cluster50", "B0RED7 one", "M4CKE4 one", "WP_1.1 two", "sp|P1|X two", "Q9 one")
    records = [("B0RED7", "A"), ("tr|M4CKE4|M4CKE4_BRARP", "C"), ("WP_1.1", "D"), ("sp|P1|X", "E"), ("sp|Q9|Y", "F")]

    corpus, warnings = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set(["ACF", "DE"])
    assert (len(corpus.clusters), warnings) == (2, [])


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        (["size accession id cluster50", "9 a x one", "9 b y one", "9 c z two"], "cluster50"),
        (["cluster30 id", "one a", "one b", "two c"], "cluster30"),
        (["member representative", "a one", "b one", "c two"], "representative"),
    ],
    ids=["accession", "id", "the first column"],
)
def test_identifiers_stand_in_the_column_of_their_name_or_in_the_first(cluster, write_table, rows, column):
    corpus, _ = cluster(write_table(*rows, column=column), [("a", "A"), ("b", "C"), ("c", "D")])

    assert as_set(groups_of(corpus)) == as_set(["AC", "D"])


def test_the_table_of_mmseqs2_names_representatives_first_and_has_no_header(cluster, write_table):
    source = write_table("P1 P1", "P1 P2", "P1 P3", "P4 P4", "P5 P5", "P5 P6")
    records = [("P1", "A"), ("P2", "C"), ("sp|P3|X", "D"), ("P4", "E"), ("P5", "F"), ("P6", "G")]

    corpus, warnings = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set(["ACD", "E", "FG"])
    assert warnings == []


def test_records_without_a_cluster_are_clusters_of_their_own(cluster, write_table):
    source = write_table("id cluster50", "a one", "b one", "d ", "", "e one")
    records = [("a", "A"), ("x", "C"), ("b", "D"), ("y", "E"), ("d", "F")]

    corpus, (warning,) = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set(["AD", "C", "E", "F"])
    assert warning.startswith("3 of 5 training proteins are not in ")
    assert warning.endswith("each is a cluster of its own; the first: 'x'")


def test_the_first_row_of_an_identifier_counts(cluster, write_table):
    source = write_table("id cluster50", "a one", "b two", "c one", "a two")

    corpus, _ = cluster(source, [("a", "A"), ("b", "C"), ("c", "D")])

    assert as_set(groups_of(corpus)) == as_set(["AD", "C"])


def test_a_copy_leaves_its_cluster_and_all_others_as_they_are(cluster, write_table):
    source = write_table("id cluster50", "a one", "b two", "c one", "d two", "e two")
    records = [("a", "AA"), ("b", "C"), ("c", "D"), ("d", "AA"), ("e", "E")]

    corpus, _ = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set([{"AA", "D"}, {"C", "E"}])
    assert sorted(corpus.clusters.members) == list(range(len(corpus))) == [0, 1, 2, 3]


def test_each_protein_is_a_member_of_exactly_one_cluster(cluster, write_table, proteins, monkeypatch):
    monkeypatch.setattr("protembed.data.corpus._RESIDUES_AT_ONCE", 1000)
    source = write_table("id cluster50", *(f"p{row} c{row % 7}" for row in range(30)))

    corpus, _ = cluster(source, [(f"p{row}", protein) for row, protein in enumerate(proteins)])

    clusters = corpus.clusters
    assert (clusters.members.dtype, clusters.offsets.dtype) == (np.int64, np.int64)
    assert sorted(clusters.members) == list(range(len(corpus)))
    assert (clusters.offsets[0], clusters.offsets[-1]) == (0, len(corpus))
    assert (np.diff(clusters.offsets) > 0).all()
    assert len(clusters) == 7 + len(proteins) - 30
    assert all(isinstance(array.base, np.memmap) for array in (clusters.members, clusters.offsets))


def test_the_order_of_clusters_is_that_of_their_hashed_names(cluster, write_table):
    rows = ["a one", "b two", "c three", "d one"]
    records = [("a", "A"), ("b", "C"), ("c", "D"), ("d", "E")]

    for ordered in (rows, rows[::-1]):
        corpus, _ = cluster(write_table("id cluster50", *ordered), records)
        assert groups_of(corpus) == [{"D"}, {"A", "E"}, {"C"}]
        assert corpus.clusters.members.tolist() == [2, 0, 3, 1]


def test_a_compressed_table_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path, cluster):
    path = tmp_path / "clusters.tsv.gz"
    path.write_bytes(gzip.compress("\ufeffid\tcluster50\r\na\tone\r\nb\tone\r\n".encode()))

    corpus, warnings = cluster(ClusterSource(path=path), [("a", "A"), ("b", "C")])

    assert (groups_of(corpus), warnings) == ([{"A", "C"}], [])


def test_the_files_of_a_corpus_with_clusters_are_these(cluster, write_table):
    corpus, _ = cluster(write_table("id cluster50", "a one"), [("a", "A")])

    names = {path.name for path in (write_table().path.parent / "corpus").iterdir()}
    assert names == {"tokens.npy", "offsets.npy", "corpus.json", "members.npy", "cluster_offsets.npy"}


def test_a_corpus_without_a_table_knows_no_clusters(corpus):
    assert corpus.clusters is None


def test_training_proteins_alone_have_clusters(tmp_path, proteins_fasta, proteins, write_table):
    ids = [line[1:].split()[0] for line in proteins_fasta.read_text().splitlines() if line.startswith(">")]
    source = write_table("id cluster50", *(f"{name} c{row // 2}" for row, name in enumerate(ids)))

    build_corpora(tmp_path / "corpora", [proteins_fasta], [], clusters=source)

    corpora = open_corpora(tmp_path / "corpora")
    known = {frozenset(proteins[row : row + 2]) for row in range(0, len(proteins), 2)}
    held_out = {corpora.valid[0].sequence(row) for row in range(len(corpora.valid[0]))}
    assert as_set(groups_of(corpora.train)) == {pair - held_out for pair in known} - {frozenset()}
    assert corpora.valid[0].clusters is None


# Errors


def test_a_table_of_other_proteins_is_refused(tmp_path, proteins_fasta, write_table):
    source = write_table("id cluster50", "a one")

    with pytest.raises(
        TableError, match=r"clusters\.tsv: none of the \d+ training proteins is in this table"
    ) as caught:
        build_corpora(tmp_path / "corpora", [proteins_fasta], [], clusters=source)

    assert "in a column named 'accession' or 'id'" in caught.value.advice
    assert [path.name for path in tmp_path.iterdir()] == ["clusters.tsv"]


def test_a_table_with_a_header_alone_is_one_of_other_proteins(cluster, write_table):
    with pytest.raises(TableError, match="none of the 1 training proteins"):
        cluster(write_table("id cluster50"), [("a", "A")])


def test_a_missing_column_is_refused_with_those_there_are(write_table):
    with pytest.raises(TableError, match="no column 'cluster50' among 'id', 'cluster90'") as caught:
        ClusterTable(write_table("id cluster90", "a one"))

    assert caught.value.line == 1


def test_a_short_row_is_refused_with_its_line(write_table):
    with pytest.raises(TableError, match=r"line 3: the row has 1 cells, none in the column 'cluster50'") as caught:
        ClusterTable(write_table("id cluster50", "a one", "b", "c one"))

    assert (caught.value.line, caught.value.exit_status) == (3, 65)


def test_a_table_that_is_not_there_or_damaged_is_refused(tmp_path):
    (tmp_path / "damaged.gz").write_bytes(gzip.compress(b"id\tcluster50\na\tone\n")[:-4])

    with pytest.raises(InputNotFoundError):
        ClusterTable(ClusterSource(path=tmp_path / "missing"))
    with pytest.raises(FormatError, match="truncated or damaged"):
        ClusterTable(ClusterSource(path=tmp_path / "damaged.gz"))
