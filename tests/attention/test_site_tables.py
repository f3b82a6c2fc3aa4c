import bz2
import gzip
import lzma

import pytest

from protembed.attention.sites import Site, read_sites
from protembed.errors import DataError, FormatError, InputNotFoundError, TableError

SMALL = "protein\tposition\tlabel\nP1\t12\tbinding\nP2\t7\tactive site\n"
SMALL_SITES = [
    Site(protein="P1", position=12, label="binding", line=2),
    Site(protein="P2", position=7, label="active site", line=3),
]
FORMS = {
    "tsv": SMALL.encode(),
    "csv": SMALL.replace("\t", ",").encode(),
    "gz": gzip.compress(SMALL.encode()),
    "bz2": bz2.compress(SMALL.encode()),
    "xz": lzma.compress(SMALL.encode()),
    "crlf": SMALL.replace("\n", "\r\n").encode(),
    "cr": SMALL.replace("\n", "\r").encode(),
    "byte-order mark": b"\xef\xbb\xbf" + SMALL.encode(),
    "quotes": SMALL.replace("binding", '"binding"').encode(),
    "spaces": SMALL.replace("\t", " \t ").encode(),
    "upper-case header": SMALL.replace("protein\tposition\tlabel", "Protein\tPOSITION\tLabel").encode(),
    "semicolons": SMALL.replace("\t", ";").encode(),
    "UTF-16": SMALL.encode("utf-16"),
    "no newline at the end": SMALL.rstrip().encode(),
    "another order and another column": b"label,source,position,protein\nbinding,X,12,P1\nactive site,Y,7,P2\n",
}


@pytest.fixture
def sites(tmp_path):
    """Return a function that writes a table of sites and reads it."""

    def write_and_read(content):
        path = tmp_path / "sites.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_sites(path).sites

    return write_and_read


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_sites_are_read_from_every_format(sites, content):
    assert sites(content) == SMALL_SITES


def test_lines_are_counted_in_the_file(sites):
    read = sites('protein,position,label\nP1,1,"a\nb"\n\n,,\nP1,2,c\n')

    assert [(site.position, site.label, site.line) for site in read] == [(1, "a\nb", 3), (2, "c", 6)]


def test_site_may_have_many_labels_and_duplicate_rows(sites):
    read = sites("protein,position,label\nP1,1,a\nP1,1,b\nP1,1,a\n")

    assert [site.label for site in read] == ["a", "b", "a"]


@pytest.mark.parametrize("header", ["Accession\tPos\tFeature", "Entry\tResidue\tAnnotation", "id\tSite\tType"])
def test_columns_may_have_other_usual_names(sites, header):
    assert sites(SMALL.replace("protein\tposition\tlabel", header)) == SMALL_SITES


def test_positions_may_name_their_residues_and_have_zero_decimals(sites):
    read = sites("protein,position,label\nP1,H57,a\nP1,Asp102,a\nP1,195.0,a\n")

    assert [(site.residue, site.position) for site in read] == [("H", 57), ("D", 102), (None, 195)]


def test_sodium_is_not_a_missing_label(sites):
    assert [site.label for site in sites("protein,position,label\nP1,1,NA\nP1,1,Na\n")] == ["NA", "Na"]


INVALID = {
    "no header": ("P1\t12\tbinding\n", "line 1: no column 'protein' among 'P1', '12', 'binding'"),
    "no label": ("protein,position\nP1,12\n", "line 1: no column 'label' among 'protein', 'position'"),
    "two labels": (
        "protein,position,label,Label\nP1,12,a,b\n",
        "line 1: 'label', 'Label' may each be the label column",
    ),
    "empty file": ("", "line 1: the first line is empty"),
    "no rows": ("protein,position,label\n\n", "the table has no rows"),
    "short row": (SMALL + "P3\t1\n", "line 4: this row has 2 cells, the header 3"),
    "empty protein": (SMALL + "\t1\tx\n", "line 4: this row has no protein"),
    "empty position": (SMALL + "P3\t\tx\n", "line 4: this row has no position"),
    "empty label": (SMALL + "P3\t1\t \n", "line 4: this row has no label"),
    "label of pandas": (SMALL + "P3\t1\tnan\n", "line 4: this row has no label"),
    "protein of a spreadsheet": (SMALL + "#N/A\t1\tx\n", "line 4: this row has no protein"),
    "position zero": (SMALL + "P3\t0\tx\n", "line 4: the position '0' is not a residue number"),
    "negative position": (SMALL + "P3\t-4\tx\n", "line 4: the position '-4'"),
    "broken position": (SMALL + "P3\t4.5\tx\n", "line 4: the position '4.5'"),
    "no residue": (SMALL + "P3\tFoo4\tx\n", "line 4: the position 'Foo4' is not a residue number"),
    "a range": (SMALL + "P3\t4-9\tx\n", "line 4: the cell '4-9' seems to hold several positions; write a row for each"),
    "a list": (SMALL + "P3\t4, 9, 12\tx\n", "line 4: the cell '4, 9, 12' seems to hold several positions"),
    "a bond": (SMALL + "P3\tC30–C115\tx\n", "line 4: the cell 'C30–C115' seems to hold several positions"),
    "foreign digits": (SMALL + "P3\t٤\tx\n", "line 4: the position '٤'"),
    "endless position": (SMALL + f"P3\t{'9' * 5000}\tx\n", "line 4: the position '999"),
}


@pytest.mark.parametrize(("content", "message"), INVALID.values(), ids=INVALID)
def test_invalid_table_raises_a_one_line_error_with_the_row(sites, content, message):
    with pytest.raises(TableError) as caught:
        sites(content)

    assert f"sites.tsv{',' if message.startswith('line') else ':'} {message}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "9" * 21 not in str(caught.value)
    assert caught.value.exit_status == DataError.exit_status == 65


def test_all_invalid_rows_are_reported_together(sites):
    message = (
        "3 faults: line 4: this row has no label; line 5: the position 'x' is not .*; line 6: this row has 1 cells"
    )
    with pytest.raises(TableError, match=message):
        sites(SMALL + "P3\t1\t\nP4\tx\ty\nP5\n")


def test_what_was_understood_of_a_table_is_noted(tmp_path):
    (tmp_path / "sites.csv").write_text("Sites of calcium;;\nprotein;position;label\nP1;12;binding\n")

    table = read_sites(tmp_path / "sites.csv")

    assert table.notes == ["read the table with semicolons, its header in line 2"]
    assert [(site.protein, site.line) for site in table.sites] == [("P1", 3)]


def test_unclosed_quotation_mark_raises_an_error_with_its_line(sites):
    with pytest.raises(TableError, match="line 3: the table cannot be read .*quotation mark that is not closed"):
        sites('protein,position,label\nP1,1,a\n"P2,2,b')


def test_truncated_archive_raises_an_error(sites):
    with pytest.raises(FormatError, match="truncated or damaged"):
        sites(gzip.compress(SMALL.encode())[:-4])


def test_error_names_a_missing_table(tmp_path):
    with pytest.raises(InputNotFoundError, match="nowhere.tsv: No such file"):
        read_sites(tmp_path / "nowhere.tsv")


def test_table_in_another_encoding_raises_an_error_with_its_line(tmp_path):
    path = tmp_path / "sites.tsv"
    path.write_bytes("Protein\tPosition\tLabel\np\t1\tHülle\n".encode("cp1252"))

    with pytest.raises(TableError, match=r"sites.tsv, line 2: character 6 of this line is not UTF-8"):
        read_sites(path)
