import gzip

import pytest

from protembed.data.fasta import ReadStatistics
from protembed.data.sequence_tables import ProteinFiles, TableReading
from protembed.errors import ConfigError, DataError, FormatError, IllegalResidueError, TableError

TABLE = "id,name,sequence,Tm\nP1,first,MKT,50\nP2,second,mkv*,60\n"


@pytest.fixture
def open_files(tmp_path):
    """Write files, by their names, and open them."""

    def write_and_open(sequence=None, id=None, on_illegal="error", on_missing="error", **contents):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        reading = TableReading(sequence=sequence, id=id, on_illegal=on_illegal, on_missing=on_missing)
        return ProteinFiles([tmp_path / name for name in contents], reading)

    return write_and_open


def pairs(files, statistics=None):
    return [(record.id, record.sequence) for record in files.read(statistics or ReadStatistics())]


FORMS = {
    "CSV": TABLE,
    "TSV": TABLE.replace(",", "\t"),
    "a comment": "# made by hand\n" + TABLE,
    "a declared separator": "sep=,\n" + TABLE,
    "a byte-order mark": "\ufeff" + TABLE,
    "compressed": gzip.compress(TABLE.encode()),
    "semicolons": TABLE.replace(",", ";"),
    "UTF-16": TABLE.encode("utf-16"),
    "a title": "Table S1: proteins\n\n" + TABLE,
    "vertical bars": TABLE.replace(",", "|"),
    "other names": TABLE.replace("id,name,sequence", "Entry,Entry Name,Protein sequence"),
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_proteins_of_a_table_keep_their_identifiers_and_cells(content, open_files):
    files, statistics = open_files(table=content), ReadStatistics()

    records = list(files.read(statistics))

    assert [(record.row, record.id, record.sequence) for record in records] == [(0, "P1", "MKT"), (1, "P2", "MKV")]
    assert [record.cells for record in records] == [["P1", "first", "MKT", "50"], ["P2", "second", "mkv*", "60"]]
    assert (files.columns.sequence, files.columns.id) == (2, 0)
    assert (statistics.num_records, statistics.num_residues) == (2, 6)
    assert pairs(files) == pairs(files)


def test_a_header_that_begins_with_a_number_sign_is_that_of_a_table(open_files):
    files = open_files(table="#id\tsequence\nP1\tMKT\n")

    assert pairs(files) == [("1", "MKT")]
    assert files.columns.header == ["#id", "sequence"]


def test_fasta_is_read_as_fasta(open_files):
    files = open_files(a=">P1 of a, b\nMKT\n", b=">P2\tx\nMKV\n")

    assert (pairs(files), files.columns) == ([("P1", "MKT"), ("P2", "MKV")], None)


def test_an_alignment_with_comments_is_not_taken_for_a_table(tmp_path):
    (tmp_path / "a.a3m").write_text("#12,4\t1,1\n>P1\nMK-T\n")
    (tmp_path / "gapped.csv").write_text("id,sequence\nP1,MK-T\n")
    reading = TableReading(gaps="drop")

    assert pairs(ProteinFiles([tmp_path / "a.a3m"], reading)) == [("P1", "MKT")]
    assert pairs(ProteinFiles([tmp_path / "gapped.csv"], reading)) == [("P1", "MKT")]


def test_rows_without_identifiers_are_named_by_their_numbers(open_files):
    assert pairs(open_files(table="sequence\nMKT\n\nMKV\n")) == [("1", "MKT"), ("3", "MKV")]
    assert pairs(open_files(table="id,sequence\n,MKT\nP2,MKV\n")) == [("1", "MKT"), ("P2", "MKV")]


def test_columns_of_any_name_can_be_named(open_files):
    content = "id,sequence,other,mine\n1,MKT,P1,MAA\n"

    assert pairs(open_files(table=content, sequence="mine", id="other")) == [("P1", "MAA")]
    with pytest.raises(TableError, match="no column 'his' among 'id', 'sequence'"):
        open_files(table=content, sequence="his")


def test_several_tables_have_to_have_the_same_columns(open_files):
    assert len(pairs(open_files(a=TABLE, b=TABLE.replace(",", "\t")))) == 4
    with pytest.raises(TableError, match=r"b: its columns are not those of .*a; give FASTA files, or tables with the"):
        open_files(a=TABLE, b="id,sequence\nP1,MKT\n")
    with pytest.raises(TableError, match=r"b: this is FASTA, and .*a is a table"):
        open_files(a=TABLE, b=">P1\nMKT\n")
    with pytest.raises(TableError, match=r"b: this is a table, and .*a is FASTA"):
        open_files(a=">P1\nMKT\n", b=TABLE)


def test_columns_of_fasta_cannot_be_named(open_files):
    with pytest.raises(ConfigError, match="sequence is 'x', but .* is not a table and has no columns"):
        open_files(a=">P1\nMKT\n", sequence="x")


def test_repeated_identifiers_of_a_table_are_counted(open_files):
    statistics = ReadStatistics()

    pairs(open_files(table="id,sequence\na,MKT\na,MKV\n"), statistics)

    assert statistics.num_duplicate_ids == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,protein\nP1,MKT\n", "line 1: no sequence column among 'id', 'protein'; name the column sequence, or pass"),
        ("id,sequence\nP1,\n", "line 2: row 'P1' has no sequence"),
        ("id,sequence\nP1,NA\n", "line 2: row 'P1' has the sequence 'NA', which seems to stand for a missing one"),
        ("id,sequence\nP1,MetLysThr\n", "line 2: the sequence of row 'P1' is in three-letter code"),
        ("id,sequence\n", "the table has no rows"),
        ("id,sequence,sequence\nP1,MKT,MKT\n", "2 columns named 'sequence'"),
    ],
)
def test_a_table_without_proteins_is_rejected_with_the_line(open_files, content, message):
    with pytest.raises(DataError, match=message):
        pairs(open_files(table=content))


@pytest.mark.parametrize(
    "content", ["@read\nMKT\n+\nIII\n", "LOCUS       AB1, 20 bp\n", '{"id": 1, "sequence": 2}', "MKT\n"]
)
def test_what_is_neither_fasta_nor_a_table_is_named(open_files, content):
    with pytest.raises(FormatError, match="this is (FASTQ|GenBank|JSON)|the first line is 'MKT', not a '>' header"):
        pairs(open_files(file=content))


def test_all_faults_of_a_table_are_reported_at_once_before_any_protein_is_read(open_files):
    content = "id,sequence\na,MKT\nb,\nc,MK?\nd\ne,MKT\n"

    with pytest.raises(TableError, match="3 faults: line 3: row 'b' has no sequence; line 4: .*; line 5: this row has"):
        open_files(table=content)


def test_rows_without_a_sequence_are_skipped_on_request(open_files):
    statistics, content = ReadStatistics(), "id,sequence\na,MKT\nb,\nc,nan\n"

    assert pairs(open_files(table=content, on_missing="skip"), statistics) == [("a", "MKT")]
    assert [(record.id, record.line) for record in statistics.skipped] == [("b", 3), ("c", 4)]


def test_a_workbook_is_read_as_a_table(open_files, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    for row in TABLE.splitlines():
        workbook.active.append(row.split(","))
    workbook.save(tmp_path / "made.xlsx")

    files = open_files(table=(tmp_path / "made.xlsx").read_bytes())

    assert pairs(files) == [("P1", "MKT"), ("P2", "MKV")]
    assert files.columns.header == ["id", "name", "sequence", "Tm"]


def test_what_is_unusual_in_a_table_is_noted(open_files):
    assert open_files(table=TABLE.replace(",", ";")).notes == ["read the table with semicolons"]
    assert open_files(table=TABLE).notes == []


def test_an_illegal_residue_of_a_table_is_an_error_or_skipped(open_files):
    content, statistics = "id,sequence\nP1,MK?\nP2,MKT\n", ReadStatistics()

    with pytest.raises(IllegalResidueError, match="line 2: '\\?' in column 3"):
        pairs(open_files(table=content))
    assert pairs(open_files(table=content, on_illegal="skip"), statistics) == [("P2", "MKT")]
    assert [(record.id, record.line) for record in statistics.skipped] == [("P1", 2)]
