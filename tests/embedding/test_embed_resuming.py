import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from protembed.callbacks import Callbacks
from protembed.cli.app import app
from protembed.config.common import ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.embedding.embed import embed_fasta
from protembed.errors import IllegalResidueError, OutputExistsError, RunMismatchError
from protembed.inference.engine import Engine
from protembed.io import growing
from protembed.io.writing import write_json


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt_after(num_proteins):
    """Make a callback that interrupts the run after a number of proteins."""
    done = []

    def count(num_residues):
        done.append(num_residues)
        if len(done) == num_proteins:
            raise KeyboardInterrupt

    return count


KINDS = {
    "npy": {},
    "npz": {},
    "tsv": {},
    "residues.npz": {"per_residue": True},
    "residues.h5": {"per_residue": True},
}


@pytest.mark.promise(2)
@pytest.mark.parametrize(("kind", "options"), KINDS.items(), ids=KINDS)
def test_a_resumed_run_gives_the_same_bytes_in_every_format(
    windowed_model, proteins_fasta, tmp_path, small_chunks, kind, options
):
    def run(folder, **callbacks):
        config = EmbedConfig(output=tmp_path / folder / f"emb.{kind}", **options)
        return embed_fasta(
            [proteins_fasta],
            EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config),
            Callbacks(**callbacks),
        )

    run("uninterrupted")
    resumed = []
    for num_more in (3, 9, 1):
        with pytest.raises(KeyboardInterrupt):
            run("interrupted", on_progress=interrupt_after(num_more))
    summary = run("interrupted", on_progress=resumed.append)

    assert contents(tmp_path / "interrupted") == contents(tmp_path / "uninterrupted")
    assert 0 < summary.num_resumed == summary.num_proteins - len(resumed) < summary.num_proteins == 40


@pytest.mark.promise(8)
def test_an_unfinished_result_of_another_command_is_replaced_only_with_force(
    windowed_model, proteins_fasta, tmp_path, small_chunks
):
    def run(**options):
        on_protein = options.pop("on_progress", lambda num_residues: None)
        config = EmbedConfig(output=tmp_path / "emb.npy", **options)
        return embed_fasta(
            [proteins_fasta],
            EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config),
            Callbacks(on_progress=on_protein),
        )

    with pytest.raises(KeyboardInterrupt):
        run(on_progress=interrupt_after(10))
    before = contents(tmp_path)

    with pytest.raises(RunMismatchError, match="was begun with other settings .`pooling` was mean, not max.;"):
        run(pooling="max")

    assert contents(tmp_path) == before
    assert run(pooling="max", force=True).num_resumed == 0
    assert json.loads((tmp_path / "emb.meta.json").read_text())["pooling"] == ["max"]


@pytest.mark.promise(8)
def test_a_run_on_stdin_is_resumed_and_recognised_as_done(
    windowed_model, proteins_fasta, tmp_path, small_chunks, give_stdin
):
    def run(folder, content=None, **callbacks):
        give_stdin(content or proteins_fasta.read_bytes())
        config = EmbedConfig(output=tmp_path / folder / "emb.npy")
        return embed_fasta(
            [Path("-")], EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config), Callbacks(**callbacks)
        )

    run("uninterrupted")
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", on_progress=interrupt_after(20))

    assert 20 <= run("interrupted").num_resumed < 40
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "uninterrupted")
    assert run("interrupted").was_done
    with pytest.raises(OutputExistsError, match="was made with other settings .the input differs"):
        run("interrupted", content=b">a\nMKT\n")


@pytest.mark.promise(3)
def test_a_chunk_is_kept_when_a_signal_arrives_while_it_is_recorded(
    windowed_model, proteins_fasta, tmp_path, small_chunks, monkeypatch
):
    """A signal raises SystemExit wherever the command is, such as just after `progress.json` was renamed."""

    def run(**callbacks):
        config = EmbedConfig(output=tmp_path / "emb.npy")
        options = EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config)
        return embed_fasta([proteins_fasta], options, Callbacks(**callbacks))

    def write_and_exit(path, value):
        write_json(path, value)
        raise SystemExit(143)

    saved = []
    with monkeypatch.context() as patches, pytest.raises(SystemExit):
        patches.setattr(growing, "write_json", write_and_exit)
        run(on_progress=saved.append)

    num_recorded = progress_of(tmp_path / "emb.npy")
    assert num_recorded > 0 == len(saved)
    assert run().num_resumed == num_recorded


def test_the_proteins_that_progress_reports_are_saved(windowed_model, proteins_fasta, tmp_path, small_chunks):
    config, reported = EmbedConfig(output=tmp_path / "emb.npy"), []
    options = EmbedOptions(model=ModelConfig(model=windowed_model), embedding=config)

    def check_progress(num_residues):
        reported.append(num_residues)
        assert len(reported) <= progress_of(config.output)

    embed_fasta([proteins_fasta], options, Callbacks(on_progress=check_progress))

    assert len(reported) == 40


# Killed


@pytest.fixture(scope="module")
def many_fasta(proteins, tmp_path_factory):
    """Write 1,540 different proteins: the real ones, and shuffled copies of them."""
    rng = np.random.default_rng(0)
    sequences = [*proteins, *("".join(rng.permutation(list(proteins[row % 40]))) for row in range(1500))]
    fasta = tmp_path_factory.mktemp("many") / "many.fasta"
    fasta.write_text("".join(f">p{row} of mouse\n{sequence}\n" for row, sequence in enumerate(sequences)))
    return fasta


def progress_of(output):
    """Return the number of committed proteins; None before the first commit."""
    try:
        return json.loads((output.with_name(f"{output.name}.partial") / "progress.json").read_text())["num_proteins"]
    except FileNotFoundError:
        return None


def kill_when(condition, command, output, delay):
    """Start a command, kill it `delay` seconds after a condition is met; return whether it was still running."""
    before = progress_of(output)
    process = subprocess.Popen([*command, output], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not condition(before, progress_of(output)):
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.promise(1)
@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("emb.npy", []), ("emb.h5", ["--per-residue"])], ids=["npy", "h5"])
def test_a_repeatedly_killed_run_gives_the_same_bytes(many_fasta, windowed_model, tmp_path, name, options):
    rng = np.random.default_rng(1)
    uninterrupted, killed = tmp_path / "uninterrupted" / name, tmp_path / "killed" / name
    words = ["embed", str(many_fasta), "-m", str(windowed_model), *options, "-o"]
    command = [sys.executable, "-m", "protembed", *words]
    assert CliRunner().invoke(app, [*words, str(uninterrupted)]).exit_code == 0
    num_proteins = 1540
    conditions = [
        lambda before, now: (killed.parent / f".{name}.lock").exists(),
        lambda before, now: now is not None,
        lambda before, now: now != before,
        lambda before, now: now == num_proteins,
    ]

    num_killed = sum(kill_when(condition, command, killed, rng.uniform(0, 0.05)) for condition in conditions)
    num_committed = progress_of(killed)
    last = CliRunner().invoke(app, [*words, str(killed), "--json"])

    assert last.exit_code == 0, last.output
    assert num_killed >= 3
    assert contents(killed.parent) == contents(uninterrupted.parent)
    assert list(killed.parent.rglob("*.partial")) == []
    summary = json.loads(last.stdout)
    assert summary["num_proteins"] == num_proteins
    assert summary["was_done"] or summary["num_resumed"] == num_committed


def test_an_error_in_the_last_record_is_found_before_the_computation(tiny_model, tmp_path, monkeypatch):
    fasta = tmp_path / "bad.fasta"
    fasta.write_text(">good\nMKTAYIAK\n>bad\nMK1\n")
    monkeypatch.setattr(Engine, "run_committed", lambda *_: pytest.fail("computed"))

    with pytest.raises(IllegalResidueError):
        embed_fasta(
            [fasta],
            EmbedOptions.from_values(model=tiny_model, output=tmp_path / "emb.npy"),
        )


def test_a_named_pipe_gives_the_same_vectors_as_a_file(tiny_model, tmp_path, proteins_fasta):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(proteins_fasta.read_bytes()))
    feeder.start()

    for fasta, name in ((pipe, "pipe.npy"), (proteins_fasta, "file.npy")):
        embed_fasta([fasta], EmbedOptions.from_values(model=tiny_model, output=tmp_path / name))
    feeder.join()

    np.testing.assert_array_equal(np.load(tmp_path / "pipe.npy"), np.load(tmp_path / "file.npy"))


def test_the_residues_to_compute_are_reported_before_the_computation(
    windowed_model, tmp_path, proteins, proteins_fasta
):
    reported = []

    embed_fasta(
        [proteins_fasta],
        EmbedOptions.from_values(model=windowed_model, output=tmp_path / "emb.npy"),
        Callbacks(on_start=reported.append, on_progress=reported.append),
    )

    assert reported[0] == sum(reported[1:]) == sum(map(len, proteins))
