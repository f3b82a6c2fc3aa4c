import csv
import json
import re
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest

from protembed.attention.tables import write_casp
from protembed.data.fasta import Record, read_fasta
from protembed.embedding.metadata import IDS
from protembed.io.result import META, sidecar

# One of each kind that hurt somebody: paths, markup, formulas, terminal codes, and directions of writing.
HOSTILE = (
    *("../../x", "/etc/x", "..", ".", "~/x", "C:\\x", "-o", "--force", "a/b", "CON"),
    *("<script>alert(1)</script>", '"><img/src=x>', "&lt;b&gt;", "$x^2$", "{{7*7}}", "[red]x[/red]", "`x`", "a|b"),
    *("=cmd()", "+1+cmd()", "-1+cmd()", "@SUM(1)", '"', "'", "x,y", "%s%n"),
    *("a\x1b[2Jb", "\x1b]0;x\x07", "a\x08b", "a\x7fb", "a\x9bb", "a\u202eb", "\u2066x", "\u200fx", "\ufeffx"),
)
# A table may have a tab or an end of a line in its cells too; a NUL is refused as damaged everywhere.
IN_TABLES = (*HOSTILE, "a\tb", "a\nb", "a\r\n=b()", " =b()", "\t=b()")


@pytest.fixture
def hostile_fasta(small_fasta, tmp_path):
    """Proteins of hostile names, with hostile words behind them."""
    sequences = [record.sequence for record in read_fasta([small_fasta])]
    records = [f">{name} =b()\t{name}\n{sequences[row % 12]}\n" for row, name in enumerate(HOSTILE)]
    path = tmp_path / "in" / "hostile.fasta"
    path.parent.mkdir()
    path.write_text("".join(records), encoding="utf-8", newline="\n")
    return path


class Reader(HTMLParser):
    """Collects what a browser would make elements of, and what stands in tables."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert [name for name, _ in attributes if name.startswith("on")] == []


def assert_harmless(text):
    """No character of a text acts on a terminal, or turns the direction of writing."""
    found = {letter for letter in text if not letter.isprintable()} - {"\n"}
    assert found == set()


def assert_no_formulas(text):
    numbers = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?|-?inf|nan", re.IGNORECASE)
    for line in text.splitlines():
        for cell in line.split("\t"):
            assert not cell.startswith(("=", "+", "-", "@")) or numbers.fullmatch(cell), line


def assert_all_is_tame(folder):
    """Look through whatever stands in a folder: names, tables, JSON, pages, text."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert re.fullmatch(r"[\w.-]+", path.name), path
        if path.suffix in (".tsv", ".json", ".md", ".rr", ".jsonl", ".txt"):
            text = path.read_text(encoding="utf-8")
            assert_harmless(text.replace("\t", "") if path.suffix == ".tsv" else text)
            if path.suffix == ".tsv":
                assert_no_formulas(text)
        if path.suffix == ".html":
            page = path.read_text(encoding="utf-8")
            assert_harmless(page)
            assert not {"img/src=x", "b"} & set(Reader(page).tags)
            assert "<script>alert" not in page


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.promise(17)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("emb.npy", []),
        ("emb.npz", []),
        ("emb.tsv", []),
        ("emb.h5", []),
        ("emb.npz", ["--per-residue"]),
        ("emb.h5", ["--per-residue"]),
    ],
)
def test_hostile_identifiers_of_embeddings_are_text(hostile_fasta, tiny_model, tmp_path, invoke, name, options):
    output = tmp_path / "out" / name

    made = invoke("embed", hostile_fasta, "-m", tiny_model, "-o", output, *options)
    checked = invoke("check", output, hostile_fasta, "-m", tiny_model)

    assert (made.exit_code, checked.exit_code) == (0, 0), made.output + checked.output
    assert_harmless(made.stderr + checked.stderr)
    table = sidecar(output, IDS)
    assert files_of(tmp_path) == {
        *("in", "in/hostile.fasta", "out", f"out/{name}", f"out/{table.name}", f"out/{sidecar(output, META).name}"),
    }
    assert_all_is_tame(tmp_path / "out")
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row[0] for row in rows[1:]] == [str(row) for row in range(1, len(HOSTILE) + 1)]
    if name.endswith("h5"):
        with h5py.File(output) as file:
            ids = {dataset.attrs["row"]: dataset.attrs["original_id"] for dataset in file.values()}
            named = [dataset for dataset in file if not re.fullmatch(r"[0-9a-f]{64}(\.\d+)?", dataset)]
        assert set(named) < set(HOSTILE)
        assert all(dataset.isprintable() and "/" not in dataset for dataset in named)
        assert [ids[row] for row in range(1, len(HOSTILE) + 1)] == list(HOSTILE)
    if (name, options) == ("emb.npz", []):
        with np.load(output, allow_pickle=False) as archive:
            assert archive["ids"].tolist() == list(HOSTILE)


@pytest.mark.promise(17)
def test_hostile_identifiers_on_stdout_and_in_lists_of_skipped_records_are_text(
    hostile_fasta, predictor, tmp_path, invoke
):
    with hostile_fasta.open("a", encoding="utf-8") as stream:
        stream.writelines(f">{name}\nMK?T\n" for name in HOSTILE)

    vectors = invoke("embed", hostile_fasta, "-m", predictor, "-o", "-", "--format", "tsv", "--on-illegal", "skip")
    listed = invoke("embed", hostile_fasta, "-m", predictor, "-o", tmp_path / "out/emb.npy", "--on-illegal", "skip")
    table = invoke("predict", hostile_fasta, "-m", predictor, "-o", "-", "--on-illegal", "skip")
    kept = invoke("predict", hostile_fasta, "-m", predictor, "-o", tmp_path / "out/p.tsv", "--on-illegal", "skip")

    for result in (vectors, listed, table, kept):
        assert result.exit_code == 0, result.output
        assert_harmless(result.stderr)
    for text in (vectors.stdout, table.stdout):
        assert text.count("\n") == 1 + len(HOSTILE)
        assert_harmless(text.replace("\t", ""))
        assert_no_formulas(text)
    assert table.stdout == (tmp_path / "out" / "p.tsv").read_text()
    assert (tmp_path / "out" / "emb.failed.tsv").read_text().count("\n") == 1 + len(HOSTILE)
    assert_all_is_tame(tmp_path / "out")


@pytest.mark.promise(17)
def test_hostile_names_of_proteins_columns_and_classes_of_a_table_are_text(
    small_fasta, tiny_model, tmp_path, invoke, write_labels
):
    (tmp_path / "in").mkdir()
    classes = ("=cmd()</script><script>alert(1)</script>\x1b[2J\u202e", "../../x\t\n@SUM(1)")
    path = tmp_path / "in" / "hostile.csv"
    fasta = tmp_path / "in" / "many.fasta"
    records = list(read_fasta([small_fasta])) * 4
    fasta.write_text("".join(f">{row}\n{one.sequence[row % 4 :]}\n" for row, one in enumerate(records)))
    write_labels(path, fasta, ids=IN_TABLES, target="=x()\x1b[2J<img/src=x>", labels=classes)
    output = tmp_path / "out" / "hostile.model"

    learned = invoke(
        *("finetune", path, "-m", tiny_model, "-o", output, "--target", "=x()\x1b[2J<img/src=x>"),
        *("--method", "frozen", "--skip-random-baseline", "--threads", 1),
    )
    predicted = invoke("predict", fasta, "-m", output, "-o", tmp_path / "out" / "p.tsv")

    assert (learned.exit_code, predicted.exit_code) == (0, 0), learned.output + predicted.output
    assert_harmless(learned.stderr + predicted.stderr)
    assert_all_is_tame(tmp_path / "out")
    assert {name.split("/")[0] for name in files_of(tmp_path)} == {"in", "out"}
    assert {name for name in files_of(tmp_path / "out") if "/" not in name} == {
        "hostile.model",
        "p.tsv",
        "p.tsv.meta.json",
    }
    assert json.loads((output / "protembed.json").read_text())["classes"] == sorted(classes)


@pytest.mark.promise(17)
def test_hostile_identifiers_of_attention_are_text(hostile_fasta, tiny_model, tmp_path, invoke):
    sites = tmp_path / "in" / "sites.tsv"
    with sites.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t").writerows([("protein", "position", "label"), *((x, 3, x) for x in HOSTILE)])
    output = tmp_path / "out" / "hostile.attention"

    result = invoke(
        *("inspect-attention", hostile_fasta, "-m", tiny_model, "-o", output, "--sites", sites, "--threads", 1),
        *("--save-maps", 4, "--num-permutations", 100, "--figure-format", "svg"),
    )

    assert result.exit_code == 0, result.output
    assert_harmless(result.stderr)
    assert_all_is_tame(tmp_path / "out")
    assert {name.split("/")[0] for name in files_of(tmp_path)} == {"in", "out"}
    assert {path.suffix for path in output.iterdir()} == {"", ".tsv", ".json", ".html"}
    for figure in output.rglob("*.svg"):
        assert not {"script", "img"} & set(Reader(figure.read_text()).tags)


@pytest.mark.promise(17)
def test_hostile_identifiers_of_a_scan_are_text(hostile_fasta, tiny_model, tmp_path, invoke):
    output = tmp_path / "out" / "hostile.scan"

    result = invoke(
        *("score", hostile_fasta, "--scan", "-m", tiny_model, "-o", output, "--threads", 1),
        *("--method", "wildtype-marginals", "--region", "1-4"),
    )

    assert result.exit_code == 0, result.output
    assert_harmless(result.output)
    assert_all_is_tame(tmp_path / "out")
    assert {name.split("/")[0] for name in files_of(tmp_path)} == {"in", "out"}


@pytest.mark.promise(17)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_identifier_in_a_casp_file_is_one_word(tmp_path, name):
    record = Record(row=0, id=name, description=name, sequence="MKTAYIAKQR", path="x.fasta", line=1)

    write_casp(tmp_path / "x.rr", record, np.zeros((10, 10)))

    text = (tmp_path / "x.rr").read_text(encoding="ascii")
    assert_harmless(text)
    assert len(text.splitlines()[1].split()) == 2


@pytest.mark.promise(17)
def test_hostile_variants_are_text(small_variants, tiny_model, tmp_path, invoke):
    header, *rows = small_variants.read_text().splitlines()
    path = tmp_path / "in" / "variants.csv"
    path.parent.mkdir()
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*header.split(","), "=note()\x1b[2J"])
        for number, name in enumerate(IN_TABLES):
            writer.writerow([name, *rows[number % 2].split(",")[1:], name])

    for output in (tmp_path / "out" / "scores.tsv", "-"):
        result = invoke("score", path, "-m", tiny_model, "-o", output, "--threads", 1)
        assert result.exit_code == 0, result.output
        assert_harmless(result.stderr)
        assert_harmless(result.stdout.replace("\t", ""))
    assert_all_is_tame(tmp_path / "out")
    assert files_of(tmp_path / "out") == {"scores.tsv", "scores.tsv.meta.json"}


@pytest.mark.promise(17)
@pytest.mark.parametrize("command", ["embed", "predict", "inspect-attention", "pretrain"])
@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\u202eb", "<script>", "../../x", "[red]x[/red]"])
def test_hostile_identifier_in_a_message_is_text(command, name, predictor, tmp_path, invoke):
    folder = tmp_path / name.replace("/", "_").replace("\0", "")
    folder.mkdir()
    (folder / "bad.fasta").write_text(f">{name}\nMK?T\n", encoding="utf-8")
    model = [] if command == "pretrain" else ["-m", predictor]

    result = invoke(command, folder / "bad.fasta", "-o", tmp_path / "out.tsv", *model)

    assert result.exit_code == 65
    assert result.stderr.count("\n") == 1
    assert_harmless(result.stderr)
    assert files_of(tmp_path) == {folder.name, f"{folder.name}/bad.fasta"}


@pytest.mark.promise(17)
def test_hostile_name_of_a_model_or_file_is_text(small_fasta, tiny_model, tmp_path, invoke):
    name = "=x()\x1b[2J<script>\u202e"
    (tmp_path / name).symlink_to(tiny_model)
    fasta = tmp_path / f"{name}.fasta"
    fasta.write_bytes(small_fasta.read_bytes() + b">bad\nM?\n")

    result = invoke(
        *("embed", fasta, "-m", tmp_path / name, "-o", tmp_path / "out" / "emb.npy", "--on-illegal", "skip", "--json")
    )

    assert result.exit_code == 0, result.output
    assert_harmless(result.stderr)
    assert_harmless(result.stdout)
    assert_all_is_tame(tmp_path / "out")
