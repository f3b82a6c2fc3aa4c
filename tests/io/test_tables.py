import io
from contextlib import suppress
from itertools import product

import pytest

from protembed.errors import DamagedArchiveError, FaultyRowsError, TableError
from protembed.io.faults import Faults
from protembed.io.tables import (
    SEQUENCE_COLUMNS,
    check_unique_columns,
    describe_traits,
    find_column,
    find_columns,
    reading_table,
)


def stream_of(content):
    return io.BufferedReader(io.BytesIO(content if isinstance(content, bytes) else content.encode()))


def read(content, **options):
    with reading_table(stream_of(content), "t.csv", **options) as table:
        return list(table.header), [(row.number, row.line, list(row.cells)) for row in table.rows]


def read_cells(content, **options):
    """Read a table: its names, its cells, and what is unusual about it."""
    with reading_table(stream_of(content), "t.csv", **options) as table:
        return list(table.header), [list(row.cells) for row in table.rows], list(table.traits)


def test_rows_have_their_number_and_line_and_cells_are_stripped():
    assert read('a , b\n1, x\n\n"2\n", y \n') == (["a", "b"], [(1, 2, ["1", "x"]), (3, 5, ["2", "y"])])


def test_a_tab_in_the_header_makes_a_tsv():
    assert read("\ufeffa\tb,c\r\n1\t2,3\r\n") == (["a", "b,c"], [(1, 2, ["1", "2,3"])])


def test_comment_lines_before_the_header_are_skipped():
    assert read("# made, by hand\n# twice\na,b\n1,# x\n") == (["a", "b"], [(1, 4, ["1", "# x"])])
    assert read("# again\n" * 1000 + "a,b\n1,2\n") == (["a", "b"], [(1, 1002, ["1", "2"])])
    assert read("#id\tb\n1\t2\n") == (["#id", "b"], [(1, 2, ["1", "2"])])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('a\n1\n"2\n3\n4\n', 3),
        ('a,b\n1,"2\n3,4\n', 2),
        ('a\tb\n1\t"2\n3\t4\n', 2),
        ('a,b\n1,"2"x\n', 2),
    ],
)
def test_an_unclosed_quotation_mark_is_an_error_not_a_long_cell(content, line):
    with pytest.raises(TableError, match=f"line {line}: the table cannot be read .*quotation mark that is not closed"):
        read(content)


def test_a_cell_of_a_tsv_cannot_span_lines():
    assert read('a,b\n1,"2\n3"\n')[1] == [(1, 3, ["1", "2\n3"])]

    with pytest.raises(TableError, match="line 3: a quotation mark that opens in line 2 closes here"):
        read('a\tb\n1\t"2\n3"\n')


def test_reading_a_table_leaves_the_stream_open():
    stream = io.BufferedReader(io.BytesIO(b"a\n1\n"))
    with reading_table(stream, "t.csv") as table:
        next(table.rows)

    assert not stream.closed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the first line is empty"),
        ("\n\n", "line 1: the first line is empty"),
        ("# made by hand\n", "line 2: the first line is empty"),
        ("\r,", "line 1: this line names no column; give a CSV or TSV table with a header"),
        (",,\n,,\n", "line 1: this line names no column"),
        ("# made by hand\na,b\n1,2\n3\n", "line 4: this row has 1 cells, the header 2"),
        ("a,b\n1,2\n3\n", "line 3: this row has 1 cells, the header 2"),
        ("a,b\n1,2,3\n", "line 2: this row has 3 cells, the header 2"),
        ('"a,b"\n"1,2"\n', "line 1: each row seems to be within one pair of quotation marks; remove them"),
        (
            "p1,MKTAYIAKQRQISFVKSHFSRQLEE,1\n",
            "line 1: the first row holds a sequence, so .* no header; write the names",
        ),
        ("a b c\n1 2 3\n", "line 1: its columns seem to be separated by spaces; separate them by commas or tabs"),
        ('"a" "b"\n1 2\n', "line 1: its columns seem to be separated by spaces"),
        ("“a”,“b”\n“1”,2\n", "line 1: the names of its columns are within other quotation marks, as in “a”; remove"),
        ("'a','b'\n'1','2'\n", "line 1: the names of its columns are within other quotation marks, as in 'a'"),
        ("L\0\0\0\1\x14\2\0\0\0", "this is a shortcut of Windows, .*; save the table as CSV"),
        ("PK\3\4" + 30 * "\0" + "labels.csv", "this is a zip archive; unpack it, and give the table"),
        ('a,b\n"' + "x" * 10_000_001 + '",2\n', "the table cannot be read"),
    ],
)
def test_a_malformed_table_is_rejected_with_the_line(content, message):
    with pytest.raises(TableError, match=message):
        read(content)


@pytest.mark.promise(24)
@pytest.mark.parametrize("letters", ["\r\n,;\t a", "\n,\"'“|#a"])
def test_every_short_text_of_separators_is_read_or_is_a_table_error(letters):
    texts = ("".join(text) for length in range(5) for text in product(letters, repeat=length))

    for text in texts:
        with suppress(TableError):
            read(text)


@pytest.mark.parametrize(
    ("content", "line", "character", "byte"),
    [
        ("a,b\n1,x\n2,Hülle\n", 3, 4, "0xFC"),
        ("a,Hülle\n1,2\n", 1, 4, "0xFC"),
        ("# made by Jörg\na,b\n1,2\n", 1, 12, "0xF6"),
        ('a,b\n"1\n2",\u201cx\u201d\n', 3, 4, "0x93"),
    ],
)
def test_a_byte_that_is_not_utf8_is_rejected_with_line_and_character(content, line, character, byte):
    message = rf"line {line}: character {character} of this line is not UTF-8 \(byte {byte}\); save the table as UTF-8"
    with pytest.raises(TableError, match=message):
        read(content.encode("cp1252"))


def test_letters_of_all_scripts_are_read_unchanged():
    assert read("id,é\nβ-Hülle,\U0001f9ec\u200b\n") == (["id", "é"], [(1, 2, ["β-Hülle", "\U0001f9ec\u200b"])])


def test_empty_columns_without_a_name_at_the_end_are_dropped():
    assert read("a,b,,\n1,2,,\n3,4,,\n") == (["a", "b"], [(1, 2, ["1", "2"]), (2, 3, ["3", "4"])])
    assert read("a,b,\n1,2,x\n") == (["a", "b", ""], [(1, 2, ["1", "2", "x"])])

    with pytest.raises(TableError, match="line 3: the cell 'x' is in a column without a name"):
        read("a,b,,\n1,2,,\n3,4,,x\n")


def test_usual_names_match_regardless_of_case_spaces_dashes_and_underscores():
    for name in ("protein_id", "Protein ID", "protein-id", "PROTEINID"):
        assert find_column(["x", name], "t.csv", "id", ["id", "protein_id"]) == 1
    assert find_column(["Protein ID", "id"], "t.csv", "id", ["id", "protein_id"]) == 1
    assert find_column(["protein", "x"], "t.csv", "id", ["id", "protein_id"]) is None
    assert find_column(["name", "protein"], "t.csv", "id", ["name", "protein"], taken=["name"]) == 1


@pytest.mark.parametrize("name", ["Sequenz", "Séquence", "Se\u0301quence protéique", "SECUENCIA", "Sequenza"])
def test_the_column_of_sequences_may_have_its_name_in_another_language(name):
    assert find_column(["id", name], "t.csv", "sequence", SEQUENCE_COLUMNS) == 1


@pytest.mark.parametrize("name", ["Tm\n(°C)", "Tm\u00a0(°C)", "tm  (°c)"])
def test_a_name_that_the_user_gave_matches_regardless_of_line_breaks_spaces_and_case(name):
    assert find_column(["x", name], "t.csv", "target", [], "Tm (°C)") == 1
    assert find_column([name, "Tm (°C)"], "t.csv", "target", [], "Tm (°C)") == 1
    assert find_columns([name, "x"], "t.csv", {"id": ["x", "tm (°c)"], "y": []}, {"y": "Tm (°C)"}) == {"id": 1, "y": 0}

    with pytest.raises(
        TableError, match="'tm \\(°C\\)', 'TM \\(°C\\)' may each be 'Tm \\(°C\\)'; name the target column"
    ):
        find_column(["tm (°C)", "TM (°C)"], "t.csv", "target", [], "Tm (°C)")


def test_two_columns_with_the_same_usual_name_are_rejected():
    with pytest.raises(TableError, match="line 1: 'Seq ID', 'seq-id' may each be the id column; rename all but one"):
        find_column(["Seq ID", "seq-id"], "t.csv", "id", ["id", "seq_id"])


def test_a_column_that_the_user_named_has_no_second_meaning():
    usual = {"id": ["id", "name"], "target": ["target"], "split": ["split"]}

    assert find_columns(["name", "target"], "t.csv", usual) == {"id": 0, "target": 1}
    assert find_columns(["name", "x", "id"], "t.csv", usual, {"target": "id", "id": None}) == {"id": 0, "target": 2}


def test_the_header_of_an_appended_table_is_rejected_with_its_line():
    with pytest.raises(TableError, match="line 4: this row repeats the header; remove it"):
        read("id,label\n1,x\n\nid, label\n2,y\n")
    with pytest.raises(TableError, match="line 3: this row repeats the header"):
        read("id,label,,\n1,x,,\nid,label,,\n")


def test_a_header_can_span_lines_and_hold_invisible_characters():
    assert read('a,"b\n(nM)"\n1,2\n3\n'.replace("3\n", "3,4\n")) == (
        ["a", "b\n(nM)"],
        [(1, 3, ["1", "2"]), (2, 4, ["3", "4"])],
    )
    assert read("\ufeff\ufeffa,\u200b b \n1,2\n") == (["a", "b"], [(1, 2, ["1", "2"])])

    with pytest.raises(TableError, match="line 3: this row repeats the header"):
        read("a,b\n1,2\n\ufeffa,b\n")
    with pytest.raises(TableError, match="line 4: this row has 1 cells, the header 2"):
        read('a,"b\nc"\n1,2\n3\n')


def test_an_unclosed_quotation_mark_in_the_header_is_rejected():
    with pytest.raises(TableError, match="line 1: the header cannot be read .*quotation mark that is not closed"):
        read('a,"b\n' + "1,2\n" * 3_000_000)


def test_a_nul_is_rejected_with_line_and_character():
    with pytest.raises(TableError, match="line 1003: character 4 of this line is NUL, .* the file is damaged"):
        read("a,b\n" + "1,2\n" * 1001 + "3,x\0y\n4,5\n")
    with pytest.raises(TableError, match="line 1002: character 1 of this line is NUL"):
        read("a,b\n" + "1,2\n" * 1000 + "\0" * 64)


def test_row_names_of_r_are_rejected_with_advice():
    with pytest.raises(TableError, match=r"line 2: this row has 3 cells, the header 2; .*row\.names = FALSE"):
        read('"a"\t"b"\n"1"\tx\ty\n"2"\tx\ty\n')


def test_the_separator_line_of_excel_is_skipped():
    assert read("sep=,\na,b\n1,2\n") == (["a", "b"], [(1, 3, ["1", "2"])])
    assert read('\ufeff"sep=\t"\r\na\tb\r\n1\t2\r\n') == (["a", "b"], [(1, 3, ["1", "2"])])
    assert read("sep=;\na;b\n1;0,5\n") == (["a", "b"], [(1, 3, ["1", "0,5"])])
    assert read("SEP=!\na!b\n1!2\n") == (["a", "b"], [(1, 3, ["1", "2"])])
    assert read("sep=;\na,b\n1,2\n") == (["a", "b"], [(1, 3, ["1", "2"])])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('"a" "b"\n"1" "2"\n', "its columns seem to be separated by spaces"),
        ('{"a": 1, "b": 2}\n', "this seems to be JSON"),
        ('[{"a": 1}]\n', "this seems to be JSON"),
        ("<html>\n", "this seems to be HTML or XML"),
        ("data_5PTI\n#\nloop_\n", "this seems to be an mmCIF file"),
        ("HEADER    HYDROLASE, SERINE PROTEINASE\n", "this seems to be a PDB file"),
        ("LOCUS       P00974   100 aa\n", "this seems to be GenBank"),
        ("CLUSTAL W (1.83)\n", "this seems to be a Clustal alignment"),
        (">p1 TARGET=a\nMK\n", "this seems to be FASTA"),
        (">Cluster 0\n0\t12aa, >p1... *\n", "this seems to be FASTA, or clusters as CD-HIT writes them"),
    ],
)
def test_a_file_that_is_neither_csv_nor_tsv_is_rejected_by_name(content, found):
    with pytest.raises(TableError, match=f"line 1: {found}"):
        read(content)


# Forms of spreadsheets


def test_semicolons_separate_columns_whose_numbers_have_decimal_commas():
    assert read_cells("id;Tm, in °C\np1;0,5\np2;1\n") == (
        ["id", "Tm, in °C"],
        [["p1", "0,5"], ["p2", "1"]],
        ["semicolons"],
    )
    with reading_table(stream_of("a;b\n1;2\n"), "t.csv") as table:
        assert table.has_decimal_commas
    with reading_table(stream_of("a,b\n1,2\n"), "t.csv") as table:
        assert not table.has_decimal_commas


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("a|b\n1|2\n", [["1", "2"]]),
        ("a,b\nx;y,z;w\n", [["x;y", "z;w"]]),
        ("a;b,c\n1;2\n", [["1", "2"]]),
        ("a,b;c\n1;2,3\n", [["1;2", "3"]]),
        ("id;label\np1;x, y\np2;z\n", [["p1", "x, y"], ["p2", "z"]]),
        ("a\tb;c\td,e\n1\t2\t3\n", [["1", "2", "3"]]),
        ("a\nx;y\nz;w\n".replace(";", ":"), [["x:y"], ["z:w"]]),
    ],
)
def test_the_separator_that_fits_the_rows_separates_the_columns(content, cells):
    assert read_cells(content)[1] == cells


def test_rows_that_fit_no_separator_are_rejected_with_their_line():
    with pytest.raises(TableError, match="line 3: this row has 1 cells, the header 2"):
        read("a;b\n1;2\n3,4\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_in_utf16_is_read_by_its_byte_order_mark(encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    content = (mark + "id\tHülle\r\n\r\np1\t0,5\r\n").encode(encoding)

    assert read_cells(content) == (["id", "Hülle"], [["p1", "0,5"]], ["UTF-16 text"])
    assert read(content)[1] == [(2, 3, ["p1", "0,5"])]


def test_incomplete_utf16_is_rejected_as_damaged():
    with pytest.raises(TableError, match="line 2: a character after line 2 is not UTF-16 .*the file is damaged"):
        read("a\tb\n1\t2\n3".encode("utf-16")[:-1])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_byte_order_mark_is_rejected_by_name(encoding):
    with pytest.raises(TableError, match="this is UTF-16 text; save the table as CSV or TSV, in UTF-8"):
        read("id\tH\np1\tx\n".encode(encoding))


def test_titles_and_blank_rows_above_the_header_are_skipped():
    table = (["id", "label", "Tm"], [["p1", "x", "0.5"]])

    for titles in (
        "Table S1: melting points,,\n,,\n",
        "Table S1: melting points\n\n",
        "TableS1,,\n",
        '"Melting points, in °C",,\nmeasured by us,,\n\n',
        "\n\n",
    ):
        header, cells, traits = read_cells(f"{titles}id,label,Tm\np1,x,0.5\n")
        line = 1 + titles.count("\n")
        assert (header, cells) == table
        assert traits == ([f"its header in line {line}"] if titles.strip() else [])


def test_notes_above_the_header_are_skipped_if_the_header_has_an_expected_name():
    content = "Author:,A. Author,\nData: see the supplement,,\nProtein ID,Seq,Tm\np1,MKT,0.5\n"

    assert read_cells(content, known=["x", "protein_id", None]) == (
        ["Protein ID", "Seq", "Tm"],
        [["p1", "MKT", "0.5"]],
        ["its header in line 3"],
    )
    assert read_cells("Mutants,\nseq,mutants,label\nMKT,label,x\n", known=["label", "mutants"])[2] == [
        "its header in line 2"
    ]
    for title in ("Mutants,,\n", "Mutants\n"):
        assert read_cells(f"{title}mutants,Tm\nQ2A,0.5\n", known=["mutants"])[:2] == (
            ["mutants", "Tm"],
            [["Q2A", "0.5"]],
        )
    assert read_cells("mutants,,\nwt,,\n", known=["mutants", "wt"])[1] == [["wt"]]
    assert read_cells("seq,label\nMKT,label\n", known=["label"])[1] == [["MKT", "label"]]
    assert read_cells("seq,kind\nMKT,label\n", known=["label"])[1] == [["MKT", "label"]]


def test_lines_of_errors_count_the_titles():
    with pytest.raises(TableError, match="line 5: this row has 1 cells, the header 2"):
        read("A title,\n\na,b\n1,2\n3\n")
    with pytest.raises(TableError, match="line 3: no column 'x' among 'a'"):
        find_column(["a"], "t.csv", "id", ["id"], "x", line=3)


@pytest.mark.parametrize("known", [(), ("sequence", "label")])
def test_the_header_of_an_index_and_one_column_is_not_a_title(known):
    assert read_cells(",sequence\n0,MKT\n1,label\n", known=known) == (
        ["", "sequence"],
        [["0", "MKT"], ["1", "label"]],
        [],
    )


@pytest.mark.parametrize("content", ["a\nfirst row\nx y\n", "two words\nx\ny\n", "a,,\nb,,\nc,,\n"])
def test_a_table_with_one_column_has_no_title(content):
    assert len(read_cells(content)[1]) == 2


def test_empty_cells_to_the_right_of_the_header_are_dropped():
    assert read("a,b\n1,2,,\n3,4\n") == (["a", "b"], [(1, 2, ["1", "2"]), (2, 3, ["3", "4"])])


def test_what_was_understood_is_one_sentence():
    content = "Table S1: melting points;\nid;Tm\np1;0,5\n".encode("utf-16")

    assert describe_traits(read_cells(content)[2]) == [
        "read the table with semicolons, UTF-16 text, its header in line 2"
    ]


# Faults


def test_all_faults_of_rows_are_reported_together_the_first_ten_in_words():
    with pytest.raises(FaultyRowsError) as caught, Faults() as faults:
        read("a,b\n1,2\n" + "3\n" * 11 + "a,b\n", faults=faults)

    lines = "; ".join(f"line {line}: this row has 1 cells, the header 2" for line in range(3, 13))
    assert str(caught.value) == f"t.csv: 12 faults: {lines}; and 2 more; correct the row"
    assert (caught.value.num_errors, len(caught.value.errors), caught.value.exit_status) == (12, 10, 65)


def test_a_single_fault_is_reported_as_it_is():
    with pytest.raises(TableError, match=r"^t\.csv, line 3: this row has 1 cells, the header 2; correct the row$"):
        with Faults() as faults:
            read("a,b\n1,2\n3\n", faults=faults)


def test_an_error_after_faults_is_reported_with_them():
    with pytest.raises(FaultyRowsError, match=r"2 faults: line 2: .*; line 3: .*; correct the row; add some$"):
        with Faults() as faults:
            read("a,b\n3\n", faults=faults)
            raise TableError("t.csv", "it has no rows", "add some", line=3)
    with pytest.raises(KeyError), Faults() as faults:
        read("a,b\n3\n", faults=faults)
        raise KeyError
    with pytest.raises(DamagedArchiveError), Faults() as faults:
        read("a,b\n3\n", faults=faults)
        raise DamagedArchiveError("t.csv", "it ends early")
    with pytest.raises(TableError, match="no rows"), Faults():
        raise TableError("t.csv", "it has no rows", "add some")


def test_only_columns_that_are_not_expected_can_share_a_name():
    check_unique_columns(["", "", "Mean", "SD", "Mean", "SD", "a"], "t.csv", [["a", "b"], "c", None])

    for name in ("a", "B", "c"):
        with pytest.raises(TableError, match=f"line 1: the header has 2 columns named '{name}'; rename them"):
            check_unique_columns([name, "x", name], "t.csv", [["a", "b"], "c", None])


def test_names_of_a_single_column_may_hold_spaces():
    assert read("protein sequence\nMKT\nMKV\n") == (["protein sequence"], [(1, 2, ["MKT"]), (2, 3, ["MKV"])])


def test_the_rule_below_the_header_of_markdown_is_dropped():
    assert read("| id | sequence |\n|:---|-----:|\n| p1 | MKT |\n| p2 | MKV |\n", known=["sequence"]) == (
        ["", "id", "sequence", ""],
        [(2, 3, ["", "p1", "MKT", ""]), (3, 4, ["", "p2", "MKV", ""])],
    )
