import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from protembed.errors import ConfigError
from protembed.pretraining.report import FINISHED
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup, joined_processes


def test_items_are_sharded_in_turn():
    shares = [ProcessGroup(rank, 3).shard(list("abcdefg")) for rank in range(3)]

    assert shares == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    assert SINGLE_PROCESS.shard("abc") == "abc"


def test_incomplete_variables_of_torchrun_are_an_error(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)

    with (
        pytest.raises(ConfigError, match="WORLD_SIZE is '2', but MASTER_ADDR is not set: start .* with torchrun"),
        joined_processes(torch.device("cpu")),
    ):
        pass


def test_a_single_process_is_the_first_and_sums_only_its_numbers():
    assert SINGLE_PROCESS.is_first
    assert not ProcessGroup(1, 2).is_first
    assert SINGLE_PROCESS.all_reduce_sum(1.5, 2) == [1.5, 2]
    assert SINGLE_PROCESS.any(True)
    assert not SINGLE_PROCESS.any(False)


def pretrain(run, fasta, *launcher, steps=20):
    command = [sys.executable, *launcher, "-m", "protembed", "pretrain", str(fasta), "-o", str(run), "--threads", "1"]
    command += ["--size", "t4_1M", "--steps", str(steps), "--validate-every", "10", "--save-every", "10"]
    command += [
        "--batch-tokens",
        "512",
        "--micro-batch-tokens",
        "128",
        "--crop-residues",
        "48",
        "--precision",
        "float32",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], result.stderr


@pytest.fixture(scope="module")
def run_alone(tmp_path_factory, proteins_fasta):
    """The directory of a run of one process."""
    run = tmp_path_factory.mktemp("alone") / "one.run"
    pretrain(run, proteins_fasta)
    return run


@pytest.mark.promise(2)
@pytest.mark.slow
def test_two_processes_see_the_same_masks_as_one_and_their_losses_agree(tmp_path, proteins_fasta, run_alone):
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

    alone = [json.loads(line) for line in (run_alone / "metrics.jsonl").read_text().splitlines()]
    together, stderr = pretrain(tmp_path / "two.run", proteins_fasta, *two)

    # With different masks the losses would differ by per cents.
    assert [line["residues"] for line in together] == [line["residues"] for line in alone]
    losses, expected = ([line["train_loss"] for line in lines] for lines in (together, alone))
    assert losses == pytest.approx(expected, rel=1e-5)
    assert together[-1]["valid_loss"] == pytest.approx(alone[-1]["valid_loss"], rel=1e-5)
    assert stderr.count("starting a new run in") == 1
    assert {path.name for path in (tmp_path / "two.run").iterdir()} == {path.name for path in run_alone.iterdir()}


@pytest.mark.promise(2)
@pytest.mark.slow
def test_two_processes_resume_a_run_of_one(tmp_path, proteins_fasta, run_alone):
    run, two = (
        shutil.copytree(run_alone, tmp_path / "a.run"),
        ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    )
    whole = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "checkpoints/step-000020/MANIFEST.json").unlink()
    facts = json.loads((run / "run.json").read_text())
    del facts[FINISHED]
    (run / "run.json").write_text(json.dumps(facts))

    resumed, stderr = pretrain(run, proteins_fasta, *two)

    assert "after step 10" in stderr
    assert [line["train_loss"] for line in resumed] == pytest.approx([line["train_loss"] for line in whole], rel=1e-5)
