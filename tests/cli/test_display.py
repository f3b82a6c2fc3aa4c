import dataclasses
import errno
import io
import json

import pytest
from rich.console import Console

from protembed.callbacks import StepReport
from protembed.cli.display import Display
from protembed.cli.process import exit_on_errors
from protembed.config.common import ConsoleConfig
from protembed.errors import FormatError, PeerProcessError


def report(step, **changes):
    values = {
        "num_steps": 10,
        "num_residues": 100 * step,
        "train_loss": 2.9,
        "learning_rate": 1e-3,
        "residues_per_second": 1000.0,
    }
    return StepReport(step=step, **values | changes)


def test_progress_lines_are_half_a_minute_apart(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    with Display(ConsoleConfig()).progress() as progress:
        progress.begin_training()
        for step in range(1, 5):
            now[0] += 20.0
            progress.step(report(step))

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 2 of 10: loss 2.900 (perplexity 18.17), 1,000 residues/s, about 2 min 40 s left",
        "step 4 of 10: loss 2.900 (perplexity 18.17), 1,000 residues/s, about 2 min 00 s left",
    ]


def test_validations_are_printed_beside_the_baselines(capsys):
    measured = {"valid_loss": 2.8, "valid_perplexity": 16.44, "unigram_perplexity": 17.96, "bigram_perplexity": 17.87}
    with Display(ConsoleConfig()).progress() as progress:
        progress.begin_training()
        progress.step(report(1, validation=measured))

    assert "perplexity 16.44 (unigram 17.96, bigram 17.87)" in capsys.readouterr().err


@pytest.mark.promise(17)
def test_control_codes_and_markup_are_printed_literally(capsys):
    Display(ConsoleConfig()).say("[red]evil\x1b[2J[/red]")

    assert capsys.readouterr().err == "[red]evil\\x1b[2J[/red]\n"


def test_known_errors_are_sentences_and_unknown_ones_tracebacks(capsys):
    with pytest.raises(SystemExit) as left, exit_on_errors():
        raise FormatError("x.fasta", "this is HTML", "give a FASTA file", line=1)
    assert left.value.code == 65
    assert capsys.readouterr().err == "protembed: x.fasta, line 1: this is HTML; give a FASTA file\n"

    with pytest.raises(ZeroDivisionError), exit_on_errors():
        raise ZeroDivisionError


def test_paths_refused_by_the_system_are_sentences_and_bugs_tracebacks(capsys):
    with pytest.raises(SystemExit) as left, exit_on_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "closed/x\x1b[2J")
    assert left.value.code == 1
    assert capsys.readouterr().err == "protembed: closed/x\\x1b[2J: Permission denied\n"

    with pytest.raises(FileNotFoundError), exit_on_errors():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")


@pytest.mark.promise(23)
def test_interrupt_exits_130():
    with pytest.raises(SystemExit) as left, exit_on_errors():
        raise KeyboardInterrupt

    assert left.value.code == 130


def test_further_validation_sets_are_printed_with_their_names(capsys):
    measured = {"valid_loss": 2.8, "valid_perplexity": 16.44, "unigram_perplexity": 17.96}
    general = {f"general/{name}": value + 1 for name, value in measured.items()}
    with Display(ConsoleConfig()).progress() as progress:
        progress.begin_training()
        progress.step(report(1, validation=measured | general))

    printed = capsys.readouterr().err
    assert "validation loss 2.8000, perplexity 16.44 (unigram 17.96); general loss 3.8000" in printed


def test_terminal_shows_a_panel_of_loss_perplexity_speed_and_time():
    screen = io.StringIO()
    display = Display(ConsoleConfig(), console=Console(file=screen, force_terminal=True, width=100))

    with display.progress() as progress:
        progress.begin_training()
        progress.step(report(4))

    shown = screen.getvalue()
    for what in ("4 of 10", "perplexity 18.17", "1,000 residues/s", "left", "400 residues", "1.00e-03"):
        assert what in shown


def test_only_the_first_of_several_processes_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")

    display = Display(ConsoleConfig(json=True))
    display.say("hello")
    display.warn("beware")
    with pytest.raises(SystemExit) as left, exit_on_errors():
        raise PeerProcessError

    assert left.value.code == 1
    assert capsys.readouterr() == ("", "")


def test_progress_shows_the_time_left_when_the_total_is_known(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    with Display(ConsoleConfig()).progress("embedded") as progress:
        progress.expect(4000)
        now[0] += 31.0
        progress.advance(1000)

    printed = capsys.readouterr().err
    assert "embedded: 1 protein, 1,000 residues, 32 residues/s; 0 min 31 s, 25 %, about 1 min 33 s left" in printed


def test_progress_names_what_it_counts(capsys, monkeypatch):
    monkeypatch.setattr("protembed.cli.progress.SECONDS_BETWEEN_LINES", 0)
    with Display(ConsoleConfig()).progress("computed", "crop", "token") as progress:
        progress.advance(1000)

    assert "computed: 1 crop, 1,000 tokens, " in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupting_embed_prints_how_to_resume(capsys, error):
    display = Display(ConsoleConfig())
    with pytest.raises(error), display.progress("embedded") as progress, display.resume_hint(progress):
        progress.advance(10)
        raise error

    assert "interrupted: 1 more protein is saved; run the same command to resume" in capsys.readouterr().err


@pytest.mark.parametrize(("to_stdout", "hint"), [(False, "interrupted before another protein was saved; "), (True, "")])
def test_interrupting_before_anything_is_saved_says_so_unless_data_goes_to_stdout(capsys, to_stdout, hint):
    display = Display(ConsoleConfig(), data_on_stdout=to_stdout)
    with pytest.raises(KeyboardInterrupt), display.progress("embedded") as progress, display.resume_hint(progress):
        raise KeyboardInterrupt

    assert capsys.readouterr().err.startswith(hint)


def test_the_first_of_many_proteins_gives_no_estimate(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    with Display(ConsoleConfig()).progress("embedded") as progress:
        progress.expect(400_000)
        now[0] += 31.0
        progress.advance(100)

    assert capsys.readouterr().err == "embedded: 1 protein, 100 residues, 3 residues/s; 0 min 31 s, 0 %\n"


def test_a_warning_is_printed_once(capsys):
    display = Display(ConsoleConfig(quiet=True))
    display.warn("beware", "beware of it")
    display.warn("beware")

    assert capsys.readouterr().err == "warning: beware\nwarning: beware of it\n"
    assert display.unprinted(["beware", "more"]) == ["more"]


def test_a_result_that_was_complete_before_is_said_to_be_up_to_date_once(capsys):
    @dataclasses.dataclass
    class Summary:
        output: str = "emb.npy"
        was_done: bool = True

    Display(ConsoleConfig(json=True)).summary(Summary(), ["found"])

    printed = capsys.readouterr()
    assert printed.err == "emb.npy is already up to date (same command, same input)\nfound\n"
    assert json.loads(printed.out) == {"output": "emb.npy", "was_done": True}
