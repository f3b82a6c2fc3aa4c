import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from protembed.cli.app import app
from protembed.cli.completion import file_completer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.fasta", "b.FA.gz", "labels.csv", "notes.doc", ".c.fasta", "sub/one.faa", "sub/two.faa"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for model in ("mine", "a.run/model"):
        (tmp_path / model).mkdir(parents=True)
        (tmp_path / model / "config.json").touch()
    return tmp_path


@pytest.fixture
def complete(folder):
    """Ask for completions as a shell does."""

    def run(line, shell="bash"):
        words = line.split(" ")
        environment = {
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_PROTEMBED_COMPLETE": f"complete_{shell}",
        }
        return CliRunner().invoke(app, [], env=environment, prog_name="protembed").stdout

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("protembed insp", ["inspect-attention"]),
        ("protembed embed ", ["a.fasta", "a.run", "b.FA.gz", "mine", "sub/"]),
        ("protembed embed a.f", ["a.fasta"]),
        ("protembed embed su", ["sub/one.faa", "sub/two.faa"]),
        ("protembed embed .", [".c.fasta"]),
        ("protembed finetune l", ["labels.csv"]),
        ("protembed predict l", ["labels.csv"]),
        ("protembed embed a.fasta -m esm2_t1", ["esm2_t12_35M"]),
        ("protembed embed a.fasta --model m", ["mine"]),
        ("protembed embed a.fasta --model a", ["a.run"]),
        ("protembed pretrain a.fasta --sched", ["--schedule"]),
        ("protembed pretrain a.fasta --schedule ", ["stable", "cosine"]),
        ("protembed embed a.fasta -m missing/", []),
    ],
)
def test_commands_options_files_models_and_choices_are_completed(complete, line, expected):
    assert complete(line).split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_models_are_completed_in_every_shell(complete, shell):
    assert "esm2_t33_650M" in complete("protembed embed -m esm2_t33", shell)


def test_names_that_a_shell_would_split_are_left_to_the_shell(folder):
    (folder / "a b.fasta").touch()

    assert file_completer(["fasta"])("a") == []


@pytest.mark.parametrize("instruction", ["source_bash", "bash_source", "zsh_source", "fish_source"])
def test_completion_script_is_printed_without_torch(instruction):
    code = (
        "import atexit, sys; from protembed.cli.app import main; sys.argv = ['protembed']; "
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    )
    environment = {**os.environ, "_PROTEMBED_COMPLETE": instruction}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "False\n")
    assert "protembed" in result.stdout and "_PROTEMBED_COMPLETE=complete_" in result.stdout
