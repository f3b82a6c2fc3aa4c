import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
README, WALK = (TOP / "README.md").read_text(), (TOP / "examples" / "README.md").read_text()
# The commands run to the letter but for these, and on a third of the proteins: a test need not learn as much as a
# reader's model.
SHORTER = {
    "--max-minutes 0.5": "--max-minutes 0.1",
    "--steps 20": "--steps 5",
    "--epochs 8": "--epochs 1 --quick",
    "--method frozen -o": "--method frozen --quick -o",
}
INSTALLATION = re.compile(r".*pip install .*?(&&|$)", re.DOTALL)


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def runnable(text):
    """All sh and python blocks in order, without installation, the tests themselves, downloads and schedulers."""
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        command = INSTALLATION.sub("", block, count=1) if "pip install" in block else block
        for long, short in SHORTER.items():
            command = command.replace(long, short)
        if not re.search(r"\bpytest\b|-m esm2_|sbatch", command):
            yield language, command.strip()


def keep_the_first(num_proteins, fasta):
    fasta.write_text("".join(f">{record}" for record in fasta.read_text().split(">")[1 : num_proteins + 1]))


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine takes its time for all commands together
@pytest.mark.parametrize("text", [README, WALK], ids=["README", "examples"])
def test_the_documented_commands_do_what_they_say(text, tmp_path):
    shutil.copytree(TOP / "examples", tmp_path / "examples")
    keep_the_first(100, tmp_path / "examples" / "proteins.fasta")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    commands = list(runnable(text))
    assert len(commands) > 5
    for language, command in commands:
        shell = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
        result = subprocess.run([*shell, command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        # head leaves early, and the command before it is told so by status 141.
        assert result.returncode == 0 or ("| head" in command and result.returncode == 141), (command, result.stderr)


def test_continuous_integration_runs_the_documented_test_command_to_the_letter():
    command = next(block for block in blocks(README, "sh") if re.search(r"\bpytest$", block.strip()))

    assert command in (TOP / ".ci" / "run").read_text()


def test_every_size_is_documented_with_its_shape():
    from protembed.config.model_sizes import SIZES

    for name, shape in SIZES.items():
        assert f"`{name}`" in README
        assert f"{shape.num_layers} × {shape.dim}, {shape.num_heads}" in README


def test_the_map_of_the_house_is_the_house():
    folders = {path.name for path in (TOP / "protembed").iterdir() if (path / "__init__.py").exists()}

    assert set(re.findall(r"^protembed/(\w+)/", README, re.MULTILINE)) == folders


def test_every_link_leads_to_a_file():
    for text, folder in ((README, TOP), (WALK, TOP / "examples")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (folder / target).exists(), target
