"""Machines on which no temporary file can be written."""

import errno
import os

import pytest

PRETRAIN = "pretrain {fasta} --valid {fasta} -o made/x.run --size t4_1M --steps 1 --batch-tokens 128 --crop-residues 32"
WITH_TEMPORARY_FILES = {
    "embed -o -": "embed {fasta} -m {model} -o -",
    "embed -": "embed - -m {model} -o made/x.npy",
    "predict -o -": "predict {fasta} -m {model} -o -",
    "pretrain": PRETRAIN,
    "pretrain --dry-run": f"{PRETRAIN} --dry-run",
    "finetune": "finetune {labels} -m {model} -o made/x.model --method frozen --threads 1",
    "inspect-attention": "inspect-attention {fasta} -m {model} -o made/x.attention",
}
WITHOUT_TEMPORARY_FILES = {
    "embed": "embed {fasta} -m {model} -o made/x.npy",
    "embed --per-residue": "embed {fasta} -m {model} -o made/x.h5 --per-residue",
    "predict": "predict {fasta} -m {model} -o made/x.tsv",
    "score": "score {variants} -m {model} -o made/x.tsv",
    "models": "models",
}


@pytest.fixture
def run(invoke, small_fasta, small_table, small_variants, predictor, tmp_path, monkeypatch):
    """Run a command on a machine on which no temporary file can be written."""

    def fail():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    inputs = {"fasta": small_fasta, "labels": small_table, "variants": small_variants, "model": predictor}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", fail)
    return lambda command: invoke(*command.format(**inputs).split())


@pytest.mark.parametrize("name", WITH_TEMPORARY_FILES)
def test_a_command_that_needs_temporary_files_says_so_and_leaves_nothing(run, name):
    ended = run(WITH_TEMPORARY_FILES[name])

    assert ended.exit_code == 1
    lines = [line for line in ended.stderr.splitlines() if "created the directory " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("protembed: temporary files cannot be written, because TMPDIR, /tmp, ")
    assert lines[0].endswith("; set TMPDIR to a directory that can be written")
    assert os.listdir() == []


@pytest.mark.parametrize("name", WITHOUT_TEMPORARY_FILES)
def test_a_command_that_needs_no_temporary_files_does_without(run, name):
    assert run(WITHOUT_TEMPORARY_FILES[name]).exit_code == 0
