"""The commands in the examples for Snakemake, Nextflow and SLURM, which need programs that tests do not install."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from protembed.cli.app import app

EXAMPLES = Path(__file__).parents[1] / "examples"
WORKFLOWS = {
    "Snakefile": ["embed", "join", "check"],
    "embed.nf": ["embed", "join", "check"],
    "embed.slurm": ["embed"],
    "join.slurm": ["join", "check"],
    "pretrain.slurm": ["pretrain"],
}
PLACEHOLDER = re.compile(r"\$?\{[^}]*\}|\$\w+")


def commands_of(text):
    """List the words of each command, with 1 in place of what a workflow fills in."""
    text = re.sub(r"(?m)^\s*(#|//).*\n", "", text)
    text = re.sub(r'\\\n\s*|(?<= )"\n\s*"', "", text)  # continued lines, and strings of Python that follow one another
    for line in re.findall(r"(?:^|[\"\s])(?:protembed|-m protembed) (\S.*)", text):
        command = re.split(r"\s2>", PLACEHOLDER.sub("1", line))[0]
        yield shlex.split(command.removesuffix('"') if command.count('"') % 2 else command)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_commands_of_a_workflow_exist_with_their_options(name):
    commands = list(commands_of((EXAMPLES / name).read_text()))

    assert [words[0] for words in commands] == WORKFLOWS[name]
    known = typer.main.get_command(app).commands
    for command, *arguments in commands:
        known[command].make_context(command, arguments)


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if name.endswith(".slurm")])
def test_scripts_for_slurm_are_valid_in_bash(name):
    result = subprocess.run(["bash", "-n", EXAMPLES / name], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "")


def test_the_snakefile_declares_every_file_that_the_next_rule_needs():
    text = (EXAMPLES / "Snakefile").read_text()

    assert text.count('.npy", ".ids.tsv", ".meta.json') == 2
    assert text.count("    log:\n") == text.count("    shell:\n") == 3
    assert "import" not in text  # Snakemake may have an environment without NumPy
