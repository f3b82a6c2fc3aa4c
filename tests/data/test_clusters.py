import gzip

import numpy as np
import pytest

from protembed.data.clusters import ClusterTable
from protembed.errors import ConfigError, FormatError, InputNotFoundError, TableError
from protembed.pretraining.corpus import Corpus, build_corpora, corpus_writer, open_corpora


@pytest.fixture
def write_table(tmp_path):
    """Write a table of clusters, given with spaces between cells, and return its path and the column of clusters."""

    def write(*rows, column="cluster50"):
        path = tmp_path / "clusters.tsv"
        path.write_text("".join(row.replace(" ", "\t") + "\n" for row in rows))
        return path, column

    return write


@pytest.fixture
def cluster(tmp_path):
    """Store records, (identifier, sequence), and return the corpus and the warnings of the table."""

    def build(source, records, **block_sizes):
        table = ClusterTable(*source)
        with corpus_writer(tmp_path / "corpus", clusters=table, **block_sizes) as writer:
            for record_id, sequence in records:
                writer.add(sequence, record_id)
        return Corpus(tmp_path / "corpus"), table.warnings()

    return build


def groups_of(corpus):
    """List the set of sequences of each cluster."""
    clusters = corpus.clusters
    starts, stops = clusters.offsets[:-1], clusters.offsets[1:]
    return [
        {corpus.sequence(row) for row in clusters.members[start:stop]}
        for start, stop in zip(starts, stops, strict=True)
    ]


def as_set(groups):
    return {frozenset(group) for group in groups}


def test_clusters_are_looked_up_by_accession_in_all_styles_of_headers(cluster, write_table):
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
        (["gene representative", "a one", "b one", "c two"], "representative"),
        (["representative gene", "one a", "one b", "two c"], "representative"),
        (["Entry_Name Entry UniRef50", "x a one", "y b one", "z c two"], "UniRef50"),
        (["ID Cluster-50", "a one", "b one", "c two"], "cluster50"),
    ],
    ids=["accession", "id", "the first column", "the first other column", "entry", "other spellings"],
)
def test_identifiers_are_read_from_the_named_column_or_the_first(cluster, write_table, rows, column):
    corpus, _ = cluster(write_table(*rows, column=column), [("a", "A"), ("b", "C"), ("c", "D")])

    assert as_set(groups_of(corpus)) == as_set(["AC", "D"])


def test_a_table_of_mmseqs2_is_read_without_a_header(cluster, write_table):
    source = write_table("P1 P1", "P1 P2", "P1 P3", "P4 P4", "P5 P5", "P5 P6")
    records = [("P1", "A"), ("P2", "C"), ("sp|P3|X", "D"), ("P4", "E"), ("P5", "F"), ("P6", "G")]

    corpus, warnings = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set(["ACD", "E", "FG"])
    assert warnings == []


def test_a_table_of_mmseqs2_may_be_in_any_order(cluster, write_table):
    source = write_table("P1 P2", "P5 P6", "P5 P5", "P1 P1", "P4 P4")
    records = [("P1", "A"), ("P2", "C"), ("P4", "D"), ("P5", "E"), ("P6", "F")]

    corpus, warnings = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set(["AC", "D", "EF"])
    assert warnings == []


def test_a_table_of_alignments_of_mmseqs2_is_read_without_a_header(cluster, write_table):
    scores = "210 1.000 8.1E-54 0 111 112 0 111 112 112M"
    source = write_table(*(f"{pair} {scores}" for pair in ("P1 P1", "P1 P2", "P4 P4", "P5 P5")), column=None)

    corpus, warnings = cluster(source, [("P1", "A"), ("P2", "C"), ("P4", "D"), ("P5", "E")])

    assert (as_set(groups_of(corpus)), warnings) == (as_set(["AC", "D", "E"]), [])


def test_full_headers_of_mmseqs2_are_looked_up_by_their_first_word(tmp_path, cluster):
    path = tmp_path / "clusters.tsv"
    path.write_text('"sp|P1|A one, two"\t"sp|P1|A one, two"\n"sp|P1|A one, two"\t"P2 other"\n"P3"\t"P3"\n')

    corpus, warnings = cluster([path], [("sp|P1|A", "A"), ("P2", "C"), ("P3", "D")])

    assert (as_set(groups_of(corpus)), warnings) == (as_set(["AC", "D"]), [])


def test_numbers_in_place_of_members_are_explained(write_table):
    with pytest.raises(TableError, match="give the sequence database twice to createtsv"):
        ClusterTable(*write_table("SV_1 4", "SV_1 7", "SV_2 9", column=None))


CDHIT = """>Cluster 0
0\t120aa, >sp|P1|A... *
1\t118aa, >P2... at 95.76%
2\t118aa, >P3|x... at 1:118:3:120/97.46%
>Cluster 1
0\t98aa, >P4... *
"""


def test_clusters_of_cdhit_are_read(tmp_path, cluster):
    (tmp_path / "a.clstr").write_text(CDHIT)

    corpus, warnings = cluster([tmp_path / "a.clstr"], [("sp|P1|A", "A"), ("P2", "C"), ("P3|x", "D"), ("P4", "E")])

    assert (as_set(groups_of(corpus)), warnings) == (as_set(["ACD", "E"]), [])


def test_identifiers_that_cdhit_shortened_are_refused(tmp_path):
    (tmp_path / "a.clstr").write_text(CDHIT.replace("P4", "P2"))

    with pytest.raises(TableError, match="identifiers recur in this file, .*; run CD-HIT with -d 0"):
        ClusterTable(tmp_path / "a.clstr")
    with pytest.raises(ConfigError, match="cluster_column is 'c', but .*a.clstr is a file of CD-HIT"):
        ClusterTable(tmp_path / "a.clstr", "c")


@pytest.mark.parametrize("header", ["id cluster", "ID Cluster_ID", "member representative", "name centroid"])
def test_usual_names_of_the_columns_of_clusters_are_found(cluster, write_table, header):
    corpus, _ = cluster(write_table(header, "a a", "b a", "c c", column=None), [("a", "A"), ("b", "C"), ("c", "D")])

    assert as_set(groups_of(corpus)) == as_set(["AC", "D"])


@pytest.mark.parametrize(
    "content",
    [
        "id,cluster50\na,one\nb,one\nc,two\n",
        '"id"\t"cluster50"\r\n"a"\t"one"\r\n"b"\t"one"\r\n"c"\t"two"\r\n',
        "# made by hand\nid \t cluster50\na \tone\nb\t one\nc\ttwo\n",
        "Clusters of the first round\n\nid;size;cluster50\na;2;one\nb;2;one\nc;1;two\n",
    ],
    ids=["CSV", "quotes", "spaces and a comment", "a title and semicolons"],
)
def test_tables_of_clusters_are_read_in_all_table_formats(tmp_path, cluster, content):
    path = tmp_path / "clusters.txt"
    path.write_text(content)

    corpus, warnings = cluster([path], [("a", "A"), ("b", "C"), ("c", "D")])

    assert (as_set(groups_of(corpus)), warnings) == (as_set(["AC", "D"]), [])


@pytest.mark.parametrize("name", ["nan", "NaN", "NA", "<NA>", "None", "null", "unknown", "-1"])
def test_a_placeholder_for_no_cluster_is_ignored(cluster, write_table, name):
    source = write_table("id cluster50", "a X", "b X", f"c {name}", f"d {name}")

    corpus, (warning,) = cluster(source, [("a", "A"), ("b", "C"), ("c", "D"), ("d", "E")])

    assert as_set(groups_of(corpus)) == as_set(["AC", "D", "E"])
    assert warning.startswith("2 of 4 training proteins have no cluster in ")


def test_records_without_a_cluster_become_separate_clusters(cluster, write_table):
    source = write_table("id cluster50", "a one", "b one", "d ", "", "e one")
    records = [("a", "A"), ("x", "C"), ("b", "D"), ("y", "E"), ("d", "F")]

    corpus, (warning,) = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set(["AD", "C", "E", "F"])
    assert warning.startswith("3 of 5 training proteins have no cluster in ")
    assert warning.endswith("each becomes a separate cluster (the first: 'x')")


def test_the_first_row_of_an_identifier_counts(cluster, write_table):
    source = write_table("id cluster50", "a one", "b two", "c one", "a two")

    corpus, _ = cluster(source, [("a", "A"), ("b", "C"), ("c", "D")])

    assert as_set(groups_of(corpus)) == as_set(["AD", "C"])


def test_removing_a_copy_leaves_all_clusters_as_they_are(cluster, write_table):
    source = write_table("id cluster50", "a one", "b two", "c one", "d two", "e two")
    records = [("a", "AA"), ("b", "C"), ("c", "D"), ("d", "AA"), ("e", "E")]

    corpus, _ = cluster(source, records)

    assert as_set(groups_of(corpus)) == as_set([{"AA", "D"}, {"C", "E"}])
    assert sorted(corpus.clusters.members) == list(range(len(corpus))) == [0, 1, 2, 3]


def test_each_protein_is_a_member_of_exactly_one_cluster(cluster, write_table, proteins):
    source = write_table("id cluster50", *(f"p{row} c{row % 7}" for row in range(30)))

    corpus, _ = cluster(source, [(f"p{row}", protein) for row, protein in enumerate(proteins)], residues_per_block=1000)

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

    corpus, warnings = cluster([path], [("a", "A"), ("b", "C")])

    assert (groups_of(corpus), warnings) == ([{"A", "C"}], [])


def test_a_corpus_with_clusters_has_two_more_files(tmp_path, cluster, write_table):
    corpus, _ = cluster(write_table("id cluster50", "a one"), [("a", "A")])

    names = {path.name for path in (tmp_path / "corpus").iterdir()}
    assert names == {"tokens.npy", "offsets.npy", "corpus.json", "members.npy", "cluster_offsets.npy"}


def test_a_corpus_without_a_table_has_no_clusters(corpus):
    assert corpus.clusters is None


def test_only_the_training_proteins_have_clusters(tmp_path, proteins_fasta, proteins, write_table):
    ids = [line[1:].split()[0] for line in proteins_fasta.read_text().splitlines() if line.startswith(">")]
    source = write_table("id cluster50", *(f"{name} c{row // 2}" for row, name in enumerate(ids)))

    build_corpora(tmp_path / "corpora", [proteins_fasta], [], clusters=ClusterTable(*source))

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
        build_corpora(tmp_path / "corpora", [proteins_fasta], [], clusters=ClusterTable(*source))

    assert "in a column named 'accession' or 'id'" in caught.value.advice
    assert [path.name for path in tmp_path.iterdir()] == ["clusters.tsv"]


def test_a_table_without_rows_is_refused(cluster, write_table):
    with pytest.raises(TableError, match="none of the 1 training proteins"):
        cluster(write_table("id cluster50"), [("a", "A")])


def test_a_missing_column_is_refused_and_the_existing_ones_are_listed(write_table):
    with pytest.raises(TableError, match="no column of clusters among 'id', 'cluster90'"):
        ClusterTable(*write_table("id cluster90", "a one", column=None))
    with pytest.raises(TableError, match="no column 'cluster50' among 'id', 'cluster90'") as caught:
        ClusterTable(*write_table("id cluster90", "a one"))

    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        (["P1 P1", "P2 P1", "P3 P1", "P4 P4"], "cluster50"),
        (["id cluster50", "one a", "one b", "two c"], "cluster50"),
        (["representative member", "one a", "one b", "two c"], "member"),
    ],
    ids=["MMseqs2's", "with a header", "of another name"],
)
def test_swapped_columns_are_refused(write_table, rows, column):
    with pytest.raises(TableError, match="the two columns seem to be swapped"):
        ClusterTable(*write_table(*rows, column=column))


@pytest.mark.parametrize("rows", [["P1 P2", "P1 P3"], ["member representative", "a a", "b a"], ["nan nan"]])
def test_two_columns_whose_clusters_are_no_members_need_a_header(write_table, rows):
    with pytest.raises(TableError, match="line 1: no column 'cluster50' among"):
        ClusterTable(*write_table(*rows))


def test_two_columns_of_the_requested_name_are_refused(write_table):
    with pytest.raises(TableError, match="line 1: 'cluster50', 'cluster50' may each be the cluster column"):
        ClusterTable(*write_table("id cluster50 cluster50", "a one two"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id\tGr\xf6\xdfe\tcluster50\n", "line 1: character 6 of this line is not UTF-8"),
        (b"id\tcluster50\na\tk\xe4fer\n", "line 2: character 4 of this line is not UTF-8"),
        ("id\tcluster50\na\tone\n".encode("utf-32"), "this is UTF-32 text"),
        (b">P1 first\nMKT\n", "this seems to be FASTA"),
        (b">Cluster 0\n0\t12aa, >P1... *\nP2\n", "line 3: 'P2' is not a member of a cluster; give the .clstr file"),
        (b"", "line 1: the first line is empty"),
    ],
    ids=["header", "row", "UTF-32", "FASTA", "CD-HIT", "empty"],
)
def test_a_file_that_is_no_table_of_clusters_is_refused_with_the_reason(tmp_path, content, message):
    (tmp_path / "clusters.tsv").write_bytes(content)

    with pytest.raises(TableError, match=message):
        ClusterTable(tmp_path / "clusters.tsv")


def test_a_short_row_is_refused_with_its_line(write_table):
    with pytest.raises(TableError, match=r"line 3: this row has 1 cells, the header 2") as caught:
        ClusterTable(*write_table("id cluster50", "a one", "b", "c one"))

    assert (caught.value.line, caught.value.exit_status) == (3, 65)


def test_a_missing_or_damaged_table_is_refused(tmp_path):
    (tmp_path / "damaged.gz").write_bytes(gzip.compress(b"id\tcluster50\na\tone\n")[:-4])

    with pytest.raises(InputNotFoundError):
        ClusterTable(tmp_path / "missing")
    with pytest.raises(FormatError, match="truncated or damaged"):
        ClusterTable(tmp_path / "damaged.gz")
