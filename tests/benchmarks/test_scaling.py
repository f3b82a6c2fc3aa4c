from argparse import Namespace

import pytest

import scaling
from processes import Usage

SMALL = Usage(seconds=2.04, cpu_seconds=3.0, peak_bytes=300_000_000, private_bytes=100_000_000)


@pytest.fixture
def runs(monkeypatch):
    """Options of a measurement whose runs take no time; what each run reads is noted."""
    read = []

    def embed(options, fasta, output, *words, num_threads=None):
        read.append((fasta.read_text(), words, num_threads))
        return SMALL

    monkeypatch.setattr(scaling, "embed", embed)
    return read


def test_rows_are_printed_as_a_table_while_they_are_measured(capsys):
    rows = scaling.shown(iter([{"proteins": 1_000, "seconds": 2.04, "in one pass": ""}]))

    next(rows)

    assert capsys.readouterr().out.splitlines() == [
        "| proteins | seconds | in one pass |",
        "|---|---|---|",
        "| 1,000 | 2.0 |  |",
    ]


def test_more_proteins_begin_with_the_same_ones(runs, tmp_path):
    options = Namespace(numbers=[2, 3], residues=30, suffix=".npy")

    list(scaling.number(options, tmp_path))

    (few, *_), (many, *_) = runs
    assert many.startswith(few)
    assert few.count(">") == 2
    assert len(many.splitlines()[-1]) == 30


def test_proteins_up_to_the_longest_pass_are_also_computed_in_one(runs, tmp_path):
    options = Namespace(lengths=[350, 1_000], longest_pass=350)

    short, long = scaling.length(options, tmp_path)

    assert [words for _, words, _ in runs] == [(), ("--window-residues", 350), ()]
    assert (short["in one pass: seconds"], long["in one pass: seconds"]) == (2.04, "")


def test_numbers_of_threads_take_turns_and_are_compared_with_the_first(runs, tmp_path):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nMSIL\n")

    rows = list(scaling.threads(Namespace(fasta=fasta, threads=[1, 2], rounds=2), tmp_path))

    assert [num_threads for _, _, num_threads in runs] == [1, 2, 1, 2]
    assert [row["faster by"] for row in rows] == ["1.00", "1.00"]
    assert rows[0]["residues/s"] == 6
