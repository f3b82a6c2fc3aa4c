"""The commands, links and facts of README, docs and tutorial."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from protembed.config.embed import EmbedOptions
from protembed.embedding.embed import embed_fasta

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# On a tenth of the proteins and a quarter of the labels, and shorter: the commands of a test need not learn as much as
# those of a reader.
SHORTER = {
    "--max-minutes 0.5": "--max-minutes 0.1",
    "--steps 20": "--steps 5",
    "--steps 120": "--steps 5",
    "--epochs 8": "--epochs 1 --skip-random-baseline",
    "--method frozen -o": "--method frozen --skip-random-baseline -o",
    "--scan --measurements": "--scan --region 100-160 --measurements",
}
# Installation, the tests themselves, the site, downloads and schedulers.
NOT_RUN = re.compile(r"\bpip install\b|\bpytest\b|\bmkdocs\b|-m esm\w+_|\bsbatch\b")

# A block that imports one of these is run where it is installed.
OTHER_PACKAGES = ("anndata",)

OPTIONS_OF_OTHER_PROGRAMS = {"--index-url", "--logdir", "--mem", "--mem-per-cpu", "--nproc-per-node"}


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def page_name(path):
    return path.relative_to(ROOT).as_posix()


def runnable(text):
    """Yield each command of the sh blocks, and each python block whole, in their order, as (language, code)."""
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        commands = re.split(r" &&\s+|\n", block.strip().replace("\\\n", "")) if language == "sh" else [block]
        for command in commands:
            for long, short in SHORTER.items():
                command = command.replace(long, short)
            if language == "python":
                missing = [name for name in OTHER_PACKAGES if f"import {name}" in command and not find_spec(name)]
                if not missing:
                    yield language, command
            elif not re.search(rf"{NOT_RUN.pattern}|^python3 -m venv|^\. ", command):
                yield language, command


def shorten(examples):
    """Keep thirty proteins, and every fourth row of the labels."""
    fasta, table = examples / "proteins.fasta", examples / "signal_peptides.csv"
    fasta.write_text("".join(f">{record}" for record in fasta.read_text().split(">")[1:31]))
    header, *rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([header, *rows[::4]]))


@pytest.fixture
def workplace(tmp_path):
    """A folder with the examples only, as for a reader who begins with this page."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shorten(tmp_path / "examples")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine takes its time for all commands of a page
@pytest.mark.parametrize("page", [page for page in PAGES if list(runnable(page.read_text()))], ids=page_name)
def test_documented_commands_run(page, workplace):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, command in runnable(page.read_text(encoding="utf-8")):
        shell = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
        result = subprocess.run([*shell, command], cwd=workplace, env=environment, capture_output=True, text=True)
        # `head` exits early, and the command before it then ends by SIGPIPE with status 141.
        assert result.returncode == 0 or ("| head" in command and result.returncode == 141), (command, result.stderr)


def test_documented_anndata_holds_vectors_lengths_and_labels_of_each_protein(tmp_path):
    pytest.importorskip("anndata")
    (block,) = [block for block in blocks((ROOT / "docs" / "search.md").read_text(), "python") if "anndata" in block]
    header, *rows = (ROOT / "examples" / "signal_peptides.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows[:3]]
    (tmp_path / "labelled.fasta").write_text("".join(f">{each[0]} one\n{each[1]}\n" for each in cells))
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "signal_peptides.csv").write_text("\n".join([header, *rows[1:]]))
    embed_fasta(tmp_path / "labelled.fasta", EmbedOptions.from_values(output=tmp_path / "labelled.npy", threads=1))

    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)

    with h5py.File(tmp_path / "labelled.h5ad") as file:
        np.testing.assert_array_equal(file["X"][:], np.load(tmp_path / "labelled.npy"))
        assert file["obs/_index"].asstr()[:].tolist() == [each[0] for each in cells]
        assert file["obs/residues"][:].tolist() == [len(each[1]) for each in cells]
        names, codes = file["obs/label/categories"].asstr()[:], file["obs/label/codes"][:]
        assert codes[0] == -1  # without a row in the table
        assert names[codes[1:]].tolist() == [each[2] for each in cells[1:]]


def test_pages_document_commands_of_all_kinds():
    commands = {command for page in PAGES for language, command in runnable(page.read_text()) if language == "sh"}

    for name in (
        "embed",
        "check",
        "join",
        "search",
        "pretrain",
        "finetune",
        "predict",
        "score",
        "inspect-attention",
        "models",
    ):
        assert any(f"protembed {name}" in command for command in commands), name


def test_continuous_integration_runs_the_documented_test_command_to_the_letter():
    command = next(block for block in blocks(README, "sh") if re.search(r"\bpytest$", block.strip()))

    assert command in (ROOT / ".ci" / "run").read_text()
    assert command in (ROOT / "docs" / "development.md").read_text()
    assert "mkdocs build --strict" in (ROOT / ".ci" / "run").read_text()


def test_every_size_is_documented_with_its_shape():
    from protembed.config.model_sizes import SIZES

    page = (ROOT / "docs" / "pretrain.md").read_text()
    for name, shape in SIZES.items():
        assert f"`{name}`" in page
        assert f"{shape.num_layers} × {shape.dim}, {shape.num_heads}" in page


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_documented_options_exist(page):
    import typer

    from protembed.cli.app import app

    group = typer.main.get_command(app)
    commands = [group, *group.commands.values()]
    options = {name for command in commands for option in command.params if not option.hidden for name in option.opts}
    documented = set(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9-]*", page.read_text(encoding="utf-8")))

    assert documented - options <= {"--help", "--version", *OPTIONS_OF_OTHER_PROGRAMS}


def test_project_layout_names_every_folder():
    folders = {path.name for path in (ROOT / "protembed").iterdir() if (path / "__init__.py").exists()}

    assert set(re.findall(r"\bprotembed/(\w+)/", README.split("## Project layout")[1].split("```")[1])) == folders


def test_readme_has_at_most_10_kilobytes():
    assert len(README.encode()) <= 10_000


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:\]\(|src(?:set)?=\")(?!https?:)([^)\"]+)", text):
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not heading or heading in headings(file), target


def headings(file):
    """Return the anchors that GitHub and the site give to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
