import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protembed.cli.app import app
from protembed.cli.process import exit_on_signals
from protembed.cli.progress import Progress

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 143)]


@pytest.mark.promise(3)
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_finishes_the_step_saves_and_exits(proteins_fasta, tmp_path, number, status):
    run = tmp_path / "a.run"
    command = [sys.executable, "-m", "protembed", "pretrain", str(proteins_fasta), "-o", str(run), "--size", "t4_1M"]
    command += ["--steps", "100000", "--batch-tokens", "1024", "--validate-every", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == status
    assert "run the same command to resume" in stderr
    assert "Traceback" not in stderr
    assert len(list((run / "checkpoints").glob("step-*/MANIFEST.json"))) == 1


@pytest.mark.promise(3)
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "times"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 2)])
def test_interrupt_does_not_wait_for_a_running_matrix_product(tiny_model, tmp_path, number, status, times):
    (tmp_path / "long.fasta").write_text(f">long\n{'MKTAYIAKQR' * 50_000}\n")
    command = f"-m protembed embed long.fasta -m {tiny_model} -o x.npy --window-residues 500000 --threads 1"
    process = subprocess.Popen([sys.executable, *command.split()], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and cpu_seconds(process.pid) < 4:
        time.sleep(0.1)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.2)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == status
    assert not re.search("Traceback|terminate|Abort", stderr)
    assert not (tmp_path / "x.npy").exists()


def cpu_seconds(pid):
    """Return the CPU time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# In this process, by a step or a protein that sends the signal


def invoke(arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def send_at(patches, shown, number, at, times=1):
    """Send a signal while a step or protein is displayed, counted from 1."""
    advance, seen = getattr(Progress, shown), []

    def advance_and_signal(self, report):
        seen.append(report)
        advance(self, report)
        if len(seen) == at:
            for _ in range(times):
                signal.raise_signal(number)  # os.kill may strike another thread, where two of them are one

    patches.setattr(Progress, shown, advance_and_signal)
    return seen


@pytest.fixture
def trainings(proteins, proteins_fasta, tiny_model, tmp_path):
    """Commands that train for six steps at least, by the folder of their checkpoints."""
    table = tmp_path / "labels.csv"
    rows = [f"{protein},{number % 7}.5\n" for number, protein in enumerate(proteins)]
    table.write_text("sequence,label\n" + "".join(rows))
    return {
        "a.run/checkpoints": [
            *("pretrain", proteins_fasta, "--init-from", tiny_model, "-o", tmp_path / "a.run", "--steps", 6),
            *("--batch-tokens", 256, "--crop-residues", 48, "--save-every", 100, "--validate-every", 100),
        ],
        "a.model.partial/model-0-0/checkpoints": [
            *(
                "finetune",
                table,
                "-m",
                tiny_model,
                "-o",
                tmp_path / "a.model",
                "--skip-random-baseline",
                "--method",
                "full",
            ),
            *("--batch-tokens", 1024, "--epochs", 2),
        ],
    }


@pytest.mark.promise(3)
@pytest.mark.parametrize("checkpoints", ["a.run/checkpoints", "a.model.partial/model-0-0/checkpoints"])
@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_signal_saves_the_step_and_the_same_command_resumes(
    trainings, tmp_path, monkeypatch, checkpoints, number, status
):
    with monkeypatch.context() as patches:
        send_at(patches, "step", number, at=2)
        result = invoke(trainings[checkpoints])

    assert result.exit_code == status
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / checkpoints).iterdir()] == ["step-000002"]
    seen = send_at(monkeypatch, "step", number, at=0)
    assert invoke(trainings[checkpoints]).exit_code == 0
    assert seen[0].step == 3


@pytest.mark.promise(3)
@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_second_signal_exits_at_once(trainings, tmp_path, monkeypatch, number, status):
    send_at(monkeypatch, "step", number, at=2, times=2)

    result = invoke(trainings["a.run/checkpoints"])

    assert result.exit_code == status
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "a.run/checkpoints").exists()
    assert [path.name for path in tmp_path.rglob(".*")] == []


@pytest.mark.promise(3)
@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_signal_keeps_saved_rows_and_the_same_command_resumes(
    proteins_fasta, tiny_model, tmp_path, monkeypatch, number, status
):
    command = ["embed", proteins_fasta, "-m", tiny_model, "-o", tmp_path / "emb.npy"]
    monkeypatch.setattr("protembed.inference.engine._TOKENS_PER_CHUNK", 800)
    monkeypatch.setattr("protembed.inference.engine._MIN_TOKENS_PER_CHUNK", 800)
    before = {sent: signal.getsignal(sent) for sent, _ in SIGNALS}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
        exit_on_signals()
        with monkeypatch.context() as patches:
            send_at(patches, "advance", number, at=20)
            result = invoke(command)
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)

    assert result.exit_code == status
    assert "run the same command to resume" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["emb.npy.partial"]
    assert '"num_resumed": 0' not in invoke([*command, "--json"]).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emb.ids.tsv", "emb.meta.json", "emb.npy"]
