"""What `score` finds out about its input, and which options fit it."""

import pytest

from protembed.config.score import ScoreOptions
from protembed.data.sequence_tables import begins_as_fasta
from protembed.errors import ConfigError, FormatError
from protembed.scoring.score import score


@pytest.mark.parametrize(
    ("content", "is_fasta"),
    [
        (">P1\nMKTAY\n", True),
        ("\ufeff\n  >P1\nMKTAY\n", True),
        ("#A3M#\n>P1\nMKTAY\n", True),
        ("mutant,sequence\nM1A,MKTAY\n", False),
        ("mutant\nM1A\n", False),
        ("# a comment\nmutant\n>1\n", False),
        ("\n", False),
    ],
)
def test_files_whose_first_record_is_a_header_are_fasta(content, is_fasta, tmp_path):
    (tmp_path / "input").write_text(content)

    assert begins_as_fasta(tmp_path / "input") is is_fasta


@pytest.mark.parametrize("values", [{}, {"scan": True}, {"fill": True}, {"mutations": "mutant"}])
def test_an_empty_file_is_an_error_whatever_is_asked_of_it(values, tmp_path):
    (tmp_path / "a.fasta").write_text("")

    with pytest.raises(FormatError, match=r"a\.fasta: the file is empty; give FASTA, or a table"):
        score(tmp_path / "a.fasta", ScoreOptions.from_values(**values))


def test_content_decides_whether_variants_or_sequences_are_scored():
    assert ScoreOptions().choose_mode("a.csv", is_fasta=False) == "variants"
    assert ScoreOptions().choose_mode("a.fasta", is_fasta=True) == "sequences"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"mutations": "mutant"},
            "mutations is 'mutant', but it is an option for a table of variants, and a.fasta is sequences in FASTA",
        ),
        (
            {"wild_type": "w.fasta"},
            "wild_type is 'w.fasta', but it is an option for a table of variants, and a.fasta is sequences in FASTA",
        ),
        (
            {"method": "pseudo-perplexity"},
            "method is 'pseudo-perplexity', but sequences in FASTA are scored by masked-marginals or "
            "wildtype-marginals",
        ),
    ],
)
def test_options_for_tables_are_errors_with_fasta(values, message):
    with pytest.raises(ConfigError) as error:
        ScoreOptions.from_values(**values).choose_mode("a.fasta", is_fasta=True)

    assert str(error.value) == message


def test_table_on_stdin_is_scored_into_a_file_named_after_stdin(tiny_model, tmp_path, monkeypatch, give_stdin):
    monkeypatch.chdir(tmp_path)
    give_stdin(b"mutant,sequence\nM1A,MKTAY\n")

    summary = score("-", ScoreOptions.from_values(model=tiny_model))

    assert (str(summary.output), summary.num_variants) == ("stdin.scores.tsv", 1)
    assert (tmp_path / "stdin.scores.tsv").read_text().splitlines()[2].startswith("M1A\tMKTAY\t1\t")
