import pytest

from protembed.errors import OutputError
from protembed.pretraining import run_report
from protembed.pretraining.run_report import RunReport
from protembed.training.run_directory import RunDirectory


class Clock:
    """A clock that moves only when it is set."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(run_report, "time", clock)
    return clock


@pytest.fixture
def report(clock, tmp_path, monkeypatch):
    """A report whose writing takes two seconds; return it, and the times at which it was written."""
    written = []

    def write(self):
        clock.now += 2
        written.append(clock.now)

    monkeypatch.setattr(RunReport, "write", write)
    return RunReport(RunDirectory(tmp_path), lambda: None), written


def test_report_of_a_run_of_less_than_a_minute_is_not_refreshed(clock, report):
    refreshed, written = report

    clock.now += 59
    refreshed.refresh()

    assert written == []


def test_refreshing_takes_at_most_a_hundredth_of_the_time(clock, report):
    refreshed, written = report

    for _ in range(3600):
        clock.now += 1
        refreshed.refresh()

    assert len(written) == pytest.approx(3600 / 200, abs=2)


@pytest.mark.parametrize("error", [OutputError("report.html", "no space left on device"), ValueError("a figure")])
def test_training_continues_if_the_report_cannot_be_refreshed_and_the_next_one_is_written(
    clock, report, monkeypatch, error
):
    refreshed, written = report
    failing = {"is": True}

    def write(self):
        clock.now += 2
        if failing["is"]:
            raise error
        written.append(clock.now)

    monkeypatch.setattr(RunReport, "write", write)
    clock.now += 61
    refreshed.refresh()
    failing["is"] = False
    clock.now += 201
    refreshed.refresh()

    assert len(written) == 1


def test_report_writes_the_page_and_the_picture(tmp_path, make_run_record):
    RunReport(RunDirectory(tmp_path), make_run_record).write()

    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "training.png"}
    assert "t4_1M, trained on proteins.fasta" in (tmp_path / "report.html").read_text()
