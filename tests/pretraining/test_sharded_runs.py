import json
import os
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from two_processes import run_two_processes

from protembed import load_model

pytestmark = pytest.mark.slow

# Kills the second process while it writes its rows for a second checkpoint.
KILL_WHILE_SAVING = """
import os, signal, sys
from protembed.training import checkpoints
from protembed.cli.app import main

write_tensors, written = checkpoints.write_tensors, []

def write_or_die(tensors, path):
    write_tensors(tensors, path)
    written.append(path)
    if len(written) == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.write_tensors = write_or_die
main()
"""


def command(run, fasta, *options):
    shape = ["--layers", "2", "--dim", "32", "--heads", "2", "--seed", "3"]
    steps = ["--steps", "8", "--validate-every", "4", "--save-every", "2", "--keep-checkpoints", "9", "--threads", "1"]
    batches = ["--batch-tokens", "384", "--micro-batch-tokens", "128", "--crop-residues", "48"]
    return ["pretrain", fasta, "-o", run, *shape, *steps, *batches, "--precision", "float32", *options]


def pretrain_alone(run, fasta):
    arguments = [sys.executable, "-m", "protembed", *map(str, command(run, fasta))]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


def pretrain_sharded(run, fasta):
    return run_two_processes("-m", "protembed", *command(run, fasta, "--shard", "always"))


def log_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_alike(run, expected):
    for key in ("train_loss", "grad_norm", "valid_loss"):
        values, others = ([line[key] for line in log_of(each) if key in line] for each in (run, expected))
        assert values == pytest.approx(others, rel=1e-5)
    weights, others = (load_file(each / "model/model.safetensors") for each in (run, expected))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert weight.numpy() == pytest.approx(others[name].numpy(), abs=2e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, proteins_fasta):
    """The directory of a run of one process."""
    run = tmp_path_factory.mktemp("alone") / "one.run"
    pretrain_alone(run, proteins_fasta)
    return run


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, proteins_fasta):
    """The directory of a run of two processes that shard the weights, and what the first one printed."""
    run = tmp_path_factory.mktemp("sharded") / "two.run"
    return run, pretrain_sharded(run, proteins_fasta)[0]


@pytest.mark.promise(2)
def test_a_sharded_run_ends_like_that_of_one_process(sharded, alone):
    run, printed = sharded

    assert_alike(run, alone)
    assert "each of the 2 processes holds a part of the weights" in printed
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    gains = [json.loads((each / "run.json").read_text())["gains"]["unigram"]["value"] for each in (run, alone)]
    assert gains[0] == pytest.approx(gains[1], abs=1e-5)


def test_the_model_of_a_sharded_run_embeds_like_that_of_one_process(sharded, alone):
    vectors, expected = (load_model(run).embed(["MKTAYIAKQR"])[0] for run in (sharded[0], alone))

    assert vectors == pytest.approx(expected, abs=1e-4)


def test_a_sharded_run_is_repeated_without_the_option_and_is_up_to_date(sharded, proteins_fasta):
    assert "up to date" in pretrain_alone(sharded[0], proteins_fasta)


@pytest.mark.promise(1, 2)
def test_a_process_killed_while_it_saves_costs_one_interval_and_one_process_resumes(tmp_path, alone, proteins_fasta):
    run, program = tmp_path / "killed.run", tmp_path / "killed.py"
    program.write_text(KILL_WHILE_SAVING)

    printed = run_two_processes(
        program, *command(run, proteins_fasta, "--shard", "always"), statuses=(1, -signal.SIGKILL)
    )

    assert "another process of this run has ended" in printed[0]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000002"]
    assert "after step 2" in pretrain_alone(run, proteins_fasta)
    assert_alike(run, alone)
    assert [path for path in run.rglob("*") if os.path.basename(path).startswith(".")] == []
