import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from protembed.callbacks import MEASURED

SMALL = ("--batch-tokens", "128", "--crop-residues", "32", "--threads", "1")
COMMANDS = (
    ("pretrain", "small.fasta", "--size", "t4_1M", "--steps", "2", "--save-every", "1", *SMALL),
    ("embed", "small.fasta", "-m", "tiny", "--report"),
    ("embed", "small.fasta", "-m", "tiny", "-o", "other.npz"),
    ("embed", "small.fasta", "-m", "tiny", "-o", "table.tsv"),
    ("embed", "small.fasta", "-m", "tiny", "-o", "residues.h5", "--per-residue", "--report"),
    (
        "finetune",
        "small.csv",
        "-m",
        "tiny",
        "--method",
        "full",
        "--epochs",
        "1",
        "--skip-random-baseline",
        "--threads",
        "1",
    ),
    ("predict", "small.fasta", "-m", "small.model"),
    ("score", "variants.csv", "-m", "tiny"),
    ("inspect-attention", "small.fasta", "-m", "tiny", "--save-maps", "2", "--rollout", "--figure-format", "both"),
)
RUN_ALL = """
import json, sys
from typer.testing import CliRunner
from protembed.cli.app import app
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
"""


def results_of(folder):
    """The bytes of every file, without the time, speed and memory of a training."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, content in files.items():
        if name.endswith("metrics.jsonl"):
            lines = [json.loads(line) for line in content.splitlines()]
            files[name] = [{key: line[key] for key in line if key not in MEASURED} for line in lines]
        if name == "small.run/report.html":
            files[name] = re.sub(rb"<h3>Speed</h3>.*?</figure>", b"", content, flags=re.DOTALL)
        if name.endswith("README.md"):
            files[name] = [line for line in content.splitlines() if not line.startswith(b"| compute |")]
    return files


@pytest.mark.promise(9)
def test_same_commands_in_another_folder_give_the_same_bytes(
    small_fasta, small_table, small_variants, tiny_model, tmp_path, invoke, monkeypatch
):
    results = []
    for place in (tmp_path / "one", tmp_path / "another" / "deeper"):
        place.mkdir(parents=True)
        for path in (small_fasta, small_table, small_variants):
            shutil.copy(path, place)
        shutil.copytree(tiny_model, place / "tiny")
        monkeypatch.chdir(place)
        if not results:
            for command in COMMANDS:
                result = invoke(*command)
                assert result.exit_code == 0, result.output
        else:
            # Where sets or hashes decide about an order, this process has another one.
            command = [sys.executable, "-c", RUN_ALL, json.dumps(COMMANDS)]
            environment = {**os.environ, "PYTHONHASHSEED": "2026"}
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
        results.append(results_of(place))

    one, other = results
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    made = {
        "small.run/model",
        "small.run/training.png",
        "small.run/report.html",
        "small.npy",
        "small.report.html",
        "residues.h5.report.html",
        "other.npz",
        "residues.h5",
        "small.model",
    }
    made |= {"small.predictions.tsv", "variants.scores.tsv", "small.attention/report.html"}
    assert [name for name in made if not any(file.startswith(name) for file in one)] == []
