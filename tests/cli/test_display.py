import dataclasses
import errno
import io
import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from protembed._version import __version__
from protembed.callbacks import StepReport
from protembed.cli.display import Display
from protembed.cli.layout import Column, Table
from protembed.cli.process import exit_on_errors
from protembed.config.common import ConsoleConfig
from protembed.errors import FaultyRowsError, FormatError, PeerProcessError, TableError

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def without_times(text):
    """Remove the time from the beginning of each line, where it must be."""
    lines = text.splitlines(keepends=True)
    assert all(re.match(TIME, line) for line in lines)
    return "".join(re.sub(TIME, "", line, count=1) for line in lines)


def report(step, **changes):
    values = {
        "num_steps": 10,
        "num_residues": 100 * step,
        "train_loss": 2.9,
        "learning_rate": 1e-3,
        "residues_per_second": 1000.0,
    }
    return StepReport(step=step, **values | changes)


def test_progress_shows_the_loss_that_can_be_compared_with_the_validation(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    with Display(ConsoleConfig()).progress() as progress:
        progress.begin_training()
        now[0] = 31.0
        progress.step(report(1, train_loss=2.5, mask_token_loss=2.9))

    assert "step 1 of 10: loss 2.900, perplexity 18.17" in capsys.readouterr().err


def test_progress_lines_are_half_a_minute_apart(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    with Display(ConsoleConfig()).progress() as progress:
        progress.begin_training()
        for step in range(1, 5):
            now[0] += 20.0
            progress.step(report(step))

    assert without_times(capsys.readouterr().err).splitlines() == [
        "step 2 of 10: loss 2.900, perplexity 18.17, 1,000 residues/s; 0 min 40 s, about 2 min 40 s left",
        "step 4 of 10: loss 2.900, perplexity 18.17, 1,000 residues/s; 1 min 20 s, about 2 min 00 s left",
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

    assert without_times(capsys.readouterr().err) == "[red]evil\\x1b[2J[/red]\n"


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
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."),
    ],
)
def test_memory_that_runs_out_is_one_sentence(capsys, error):
    with pytest.raises(SystemExit) as left, exit_on_errors():
        raise error

    assert left.value.code == 1
    assert re.fullmatch(
        r"protembed: memory ran out \([\d,.]+ GB may be used\); ask for more\n", capsys.readouterr().err
    )


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
    assert "validation loss 2.800, perplexity 16.44 (unigram 17.96); general loss 3.800" in printed


def test_terminal_shows_a_panel_of_loss_perplexity_speed_and_time():
    screen = io.StringIO()
    display = Display(ConsoleConfig(), console=Console(file=screen, force_terminal=True, width=100))

    with display.progress() as progress:
        progress.begin_training()
        progress.step(report(4))

    shown = screen.getvalue()
    for what in ("4 of 10", "perplexity 18.17", "1,000 residues/s", "left", "400 residues", "0.001"):
        assert what in shown


def test_only_the_first_of_several_processes_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

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

    assert without_times(capsys.readouterr().err).startswith(hint)


def test_the_first_of_many_proteins_gives_no_estimate(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    with Display(ConsoleConfig()).progress("embedded") as progress:
        progress.expect(400_000)
        now[0] += 31.0
        progress.advance(100)

    line = without_times(capsys.readouterr().err)
    assert line == "embedded: 1 protein, 100 residues, 3 residues/s; 0 min 31 s, < 1 %\n"


def test_a_warning_is_printed_once(capsys):
    display = Display(ConsoleConfig(quiet=True))
    display.warn("beware", "beware of it")
    display.warn("beware")

    assert capsys.readouterr().err == "warning: beware\nwarning: beware of it\n"
    assert display.unprinted(["beware", "more"]) == ["more"]


def test_a_warning_names_options_as_flags_and_commands_as_they_are(capsys):
    Display(ConsoleConfig()).warn("`on_illegal` has no effect on results of `embed`")

    assert capsys.readouterr().err == "warning: --on-illegal has no effect on results of `embed`\n"


def test_a_result_that_was_complete_before_is_said_to_be_up_to_date_once(capsys):
    @dataclasses.dataclass
    class Summary:
        output: Path = Path("missing.npy")
        was_done: bool = True

    Display(ConsoleConfig(json=True), command="embed").summary(Summary(), ["found"], next_step="look at it")

    printed = capsys.readouterr()
    lines = ["missing.npy is already up to date (same command, same input)", "found", "next: look at it"]
    assert without_times(printed.err).splitlines() == lines
    summary = json.loads(printed.out)
    assert summary.pop("seconds") >= 0
    assert summary == {
        "command": "embed",
        "version": __version__,
        "model": None,
        "device": None,
        "files": [],
        "output": "missing.npy",
        "was_done": True,
        "warnings": [],
    }


def terminal(screen, width):
    return Console(file=screen, force_terminal=True, width=width, highlight=False)


@pytest.mark.parametrize("width", [40, 60])
def test_terminal_breaks_lines_between_words(width):
    screen = io.StringIO()
    display = Display(ConsoleConfig(), console=terminal(screen, width))

    display.say("training all parameters of the encoder (full), validated on 12 proteins")
    display.warn("the file /a/path/that/is/longer/than/a/line/of/the/terminal/proteins.fasta was skipped")

    lines = screen.getvalue().splitlines()
    assert all(len(line) <= width or line.startswith("  /a/path") for line in lines)
    assert " ".join(line.strip() for line in lines) == (
        "training all parameters of the encoder (full), validated on 12 proteins "
        "warning: the file /a/path/that/is/longer/than/a/line/of/the/terminal/proteins.fasta was skipped"
    )


def test_lines_of_a_table_keep_their_spaces_on_a_terminal():
    screen = io.StringIO()
    Display(ConsoleConfig(), console=terminal(screen, 40)).say("frozen    0.91  0.88")

    assert screen.getvalue() == "frozen    0.91  0.88\n"


def drawn(progress):
    screen = Console(file=io.StringIO(), width=100)
    screen.print(progress._drawn())
    return screen.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_panel_fits_the_terminal_and_breaks_no_fact(width):
    screen = io.StringIO()
    progress = Display(ConsoleConfig(), console=terminal(screen, width)).progress()
    progress.begin_training(is_adjusted=True)
    measured = {"valid_loss": 2.8, "valid_perplexity": 16.44, "unigram_perplexity": 17.96, "bigram_perplexity": 17.87}
    further = {f"a_long_name_of_proteins/{name}": value for name, value in measured.items()}
    for step in range(1, 9):
        progress.step(report(step, train_loss=3 - step / 10, validation=measured | further))
    plain = Console(file=io.StringIO(), width=width)
    plain.print(progress._drawn())

    lines = plain.file.getvalue().splitlines()
    assert {len(line) for line in lines} == {width}
    facts = " ".join(line.strip("│╭╮╰╯─ ") for line in lines)
    for fact in (
        "8 of about 10",
        "loss 2.800",
        "perplexity 16.44",
        "unigram 17.96",
        "800 residues seen",
        "▁",
        "a_long_name_o…",
    ):
        assert fact in facts
    assert facts.count("validation") == 1


def test_panel_of_a_terminal_without_unicode_is_ascii():
    progress = Display(ConsoleConfig(), console=terminal(Latin1(), 60)).progress("embedded")
    waiting = plain_text(progress)
    progress.begin_training()
    for step in (1, 2):
        progress.step(report(step, train_loss=3 - step / 10))

    assert (waiting + plain_text(progress)).isascii()


class Latin1(io.StringIO):
    encoding = "latin-1"


def plain_text(progress):
    screen = Latin1()
    Console(file=screen, width=60).print(progress._drawn())
    return screen.getvalue()


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("FORCE_COLOR", "1"), ("NO_COLOR", "1")])
def test_files_and_plain_terminals_get_no_control_code_and_no_colour(variable, value, monkeypatch, capfd):
    monkeypatch.setenv(variable, value)
    display = Display(ConsoleConfig())
    if variable == "TERM":
        display = Display(ConsoleConfig(), console=Console(stderr=True, force_terminal=True, width=60))
    with display.progress("embedded") as progress:
        progress.expect(100)
        progress.advance(50)
        display.say("half of it")

    printed = capfd.readouterr().err
    assert printed.endswith("half of it\n") and "\x1b" not in printed


def test_name_of_a_stage_is_printed_unless_a_live_display_shows_it(capsys):
    screen = io.StringIO()
    Display(ConsoleConfig(), console=terminal(screen, 60)).say_unless_live("metrics")
    Display(ConsoleConfig()).say_unless_live("metrics")

    assert screen.getvalue() == "" and without_times(capsys.readouterr().err) == "metrics\n"


def test_table_is_whole_in_the_log_and_fits_the_terminal(tmp_path):
    names = Column(name="", cells=["random initialisation"], is_text=True)
    table = Table(columns=[names, *(Column(name=name, cells=["0.853"]) for name in ("accuracy", "macro F1"))])
    screen = io.StringIO()
    with ExitStack() as files:
        options = ConsoleConfig(log_file=tmp_path / "log")
        display = Display(options, console=terminal(screen, 34))
        display.open_log(files, "protembed")
        display.say(table)

    assert screen.getvalue().splitlines() == [
        "                       accuracy",
        "random initialisation     0.853",
        "                       macro F1",
        "random initialisation     0.853",
    ]
    assert "accuracy  macro F1" in (tmp_path / "log").read_text()


def test_stage_after_a_training_is_counted_from_zero(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    progress = Display(ConsoleConfig()).progress("embedded")
    progress.advance(1000)
    progress.begin_training(name="fine-tuned, fold 1")
    now[0] += 100.0
    progress.step(report(4, validation={"valid_loss": 0.5}))
    panel = drawn(progress)
    progress.begin_stage("metrics")
    now[0] += 3.0
    waiting = drawn(progress)
    progress.advance(60)

    assert "fine-tuned, fold 1" in panel and re.search(r"validation +loss 0\.500", panel) and "embedded" not in panel
    assert "metrics, 0 min 03 s" in waiting
    assert "metrics: embedded, 1 protein, 60 residues, 20 residues/s, 0 min 03 s" in drawn(progress)


def test_time_left_and_rate_do_not_grow_worse_while_a_piece_is_computed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    progress = Display(ConsoleConfig()).progress("embedded")
    progress.expect(400)
    now[0] += 10.0
    progress.advance(200)
    now[0] += 4.0

    assert "20 residues/s, 0 min 14 s, 50 %, about 0 min 06 s left" in " ".join(drawn(progress).split())


def test_residues_are_counted_before_their_proteins_are_saved(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("protembed.cli.progress.time.monotonic", lambda: now[0])
    progress = Display(ConsoleConfig()).progress("embedded")
    progress.expect(400)
    now[0] += 10.0
    progress.compute(100)

    assert "100 residues, 10 residues/s, 0 min 10 s, 25 %, about 0 min 30 s left" in drawn(progress)
    assert progress.num_finished == 0

    progress.advance(90)
    assert "1 protein, 90 residues, " in drawn(progress)


def test_work_after_the_last_residue_is_called_finishing(monkeypatch):
    progress = Display(ConsoleConfig()).progress("inspected")
    progress.expect(400)
    progress.advance(400)

    assert "0 min 00 s, finishing" in drawn(progress) and "left" not in drawn(progress)


def test_number_of_steps_that_is_adjusted_is_shown_as_approximate(capsys):
    with Display(ConsoleConfig()).progress() as progress:
        progress.begin_training(is_adjusted=True)
        progress.step(report(4, validation={"valid_loss": 2.5}))

    assert "step 4 of about 10: validation loss 2.500" in capsys.readouterr().err


def test_log_file_is_appended_to_with_times_even_with_quiet(capsys, tmp_path):
    path = tmp_path / "run.log"
    for number in (1, 2):
        with ExitStack() as files:
            display = Display(ConsoleConfig(quiet=True, log_file=path))
            display.open_log(files, f"protembed embed {number}")
            display.say("done")
            display.warn("beware")
            display.error("x.fasta: it is empty", FormatError("x.fasta", "it is empty", "look"), 65)

    logged = ["done", "warning: beware", "protembed: x.fasta: it is empty"]
    assert without_times(path.read_text()).splitlines() == ["protembed embed 1", *logged, "protembed embed 2", *logged]
    assert capsys.readouterr().err == 2 * "warning: beware\nprotembed: x.fasta: it is empty\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_log_file_on_a_full_disk_is_warned_of_once(capsys):
    with ExitStack() as files:
        display = Display(ConsoleConfig(quiet=True, log_file=Path("/dev/full")))
        display.open_log(files, "protembed embed")
        display.say("done")

    assert capsys.readouterr().err == (
        "warning: cannot write /dev/full (No space left on device); this and later lines are not logged\n"
    )


def test_rank_without_several_processes_silences_nothing(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    Display(ConsoleConfig()).warn("beware")

    assert capsys.readouterr().err == "warning: beware\n"


def test_error_of_another_than_the_first_process_is_printed_but_not_as_json(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    Display(ConsoleConfig(json=True)).error("x: it is empty", FormatError("x", "it is empty", "look"), 65)

    assert capsys.readouterr() == ("", "protembed: x: it is empty\n")


@pytest.fixture
def faulty():
    """Eleven faults of a table, ten of which are listed."""
    faults = [
        TableError("x.csv", f"row {line} has no label", "pass `on_missing` skip", line=line) for line in range(2, 12)
    ]
    return FaultyRowsError(faults, 11)


def test_faults_of_a_table_are_a_list_on_a_terminal(faulty):
    screen = io.StringIO()

    console = Console(file=screen, force_terminal=True, color_system=None, width=60)
    Display(ConsoleConfig(), console=console).error(str(faulty), faulty, 65)

    lines = screen.getvalue().splitlines()
    assert lines[:2] == ["protembed: x.csv: 11 faults", "  line 2: row 2 has no label"]
    assert lines[-2:] == ["  and 1 more", "pass --on-missing skip"]


def test_faults_of_a_table_are_one_line_elsewhere_and_a_list_in_json(faulty, capsys):
    Display(ConsoleConfig(json=True)).error(str(faulty), faulty, 65)

    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    first, *others = json.loads(printed.out)["error"]["faults"]
    assert first == {"path": "x.csv", "line": 2, "message": "row 2 has no label"} and len(others) == 9


def test_error_is_json_alone_on_stderr_if_stdout_carries_data(capsys):
    display = Display(ConsoleConfig(json=True), data_on_stdout=True)

    display.error("x: it is empty", FormatError("x", "it is empty", "look"), 65)

    printed = capsys.readouterr()
    assert printed.out == "" and json.loads(printed.err)["error"]["message"] == "x: it is empty"


def test_signal_that_ends_a_command_is_an_error_in_json_unless_the_summary_is_printed(capsys):
    for is_summarised in (False, True):
        display = Display(ConsoleConfig(json=True))
        with pytest.raises(SystemExit), display.report_signals():
            if is_summarised:
                display.summary({"is_finished": False}, [])
            raise SystemExit(143)

    interrupted, summarised = map(json.loads, capsys.readouterr().out.splitlines())
    assert interrupted["error"]["status"] == 143
    assert summarised["is_finished"] is False


def test_stderr_holds_the_json_alone_if_stdout_carries_data(capsys):
    display = Display(ConsoleConfig(json=True), data_on_stdout=True)
    display.say("working")
    display.warn("beware")
    display.summary({"num_proteins": 3}, ["found"])

    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["num_proteins"] == 3
    assert json.loads(printed.err)["warnings"] == ["beware"]
