"""What `protembed score --fill` prints."""

import pytest


@pytest.fixture
def masked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "masked.fasta"
    path.write_text(">a\nMKTAYIAKQRQISFV?SHF\n>b\nMKTAYIAKQRQISFV<mask>S?F\n")
    return path


def test_filling_in_prints_what_was_written_and_what_comes_next(invoke, masked, tiny_model):
    table = invoke("score", masked, "--fill", "-m", tiny_model)
    samples = invoke("score", masked, "--fill", "--samples", 2, "-m", tiny_model)

    assert (table.exit_code, samples.exit_code) == (0, 0)
    assert "masked.filled.tsv: the most probable residues at 3 masked positions of 2 proteins" in table.stderr
    assert "next: open masked.filled.tsv in a spreadsheet" in table.stderr
    assert "masked.filled.fasta: 2 samples of each of 2 proteins, drawn at 3 masked positions" in samples.stderr
    assert "next: `protembed score masked.filled.fasta`, with the same `--model`, shows how likely" in samples.stderr


def test_repeating_the_command_says_that_the_result_is_up_to_date(invoke, masked, tiny_model):
    for _ in range(2):
        result = invoke("score", masked, "--fill", "-m", tiny_model)

    assert result.exit_code == 0
    assert "is already up to date" in result.stderr
    assert "masked positions of" not in result.stderr


def test_samples_on_stdout_are_fasta_alone(invoke, masked, tiny_model):
    result = invoke("score", masked, "--fill", "--samples", 1, "-m", tiny_model, "-o", "-", "-q")

    assert [line.split()[0] for line in result.stdout.splitlines()][::2] == [">a_sample1", ">b_sample1"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--fill", "--seed", 1], 2, "--seed is 1, but it needs --samples"),
        (["--top", 3], 2, "--top is 3, but it needs --fill"),
        (["--fill", "--top", 21], 2, "--top"),
        (["--fill", "--samples", 1, "-o", "a.tsv"], 2, "--samples writes sequences: name it .fasta"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(arguments, status, message, invoke, masked, tiny_model):
    result = invoke("score", masked, "-m", tiny_model, *arguments)

    assert result.exit_code == status
    assert message in result.stderr


def test_embed_names_the_option_that_reads_masked_positions(invoke, masked, tiny_model):
    result = invoke("embed", masked, "-m", tiny_model)

    assert result.exit_code == 65
    assert "only `protembed score` with --fill reads it" in result.stderr
