"""Files that a user keeps in the directory of a result, which `--force` would replace."""

from pathlib import Path

import pytest

from protembed.data.structures import read_chains

STRUCTURES = Path(__file__).parents[1] / "data" / "fixtures" / "structures"
COMMANDS = {
    "pretrain": "pretrain {fasta} -o x --size t4_1M --steps 2 --save-every 1 --batch-tokens 128 --crop-residues 32",
    "finetune": "finetune {labels} -m {model} -o x --method full --epochs 1 --skip-random-baseline --on-illegal skip",
    "inspect-attention": "inspect-attention {chains} --structures {structures} --sites {sites} -m {model} -o x "
    "--figure-format both --save-maps 1 --num-permutations 100 --rollout",
}


@pytest.fixture
def inputs(small_fasta, small_table, predictor, tmp_path, monkeypatch):
    """Change to an empty directory, and return the inputs of all commands."""
    chains, sites, labels = (tmp_path / name for name in ("chains.fasta", "sites.tsv", "labels.csv"))
    sequences = [read_chains(path)[0].sequence for path in sorted(STRUCTURES.glob("*.gz"))]
    chains.write_text("".join(f">c{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    sites.write_text("protein\tposition\tlabel\nc0\t3\tactive\n")
    labels.write_text(f"{small_table.read_text()}bad,MK?,rich,train\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return {
        "fasta": small_fasta,
        "labels": labels,
        "model": predictor,
        "chains": chains,
        "structures": STRUCTURES,
        "sites": sites,
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_force_replaces_what_a_command_writes_and_no_file_of_the_user(invoke, inputs, name, monkeypatch):
    def begin(*unused):
        raise SystemExit(0)

    command = [*COMMANDS[name].format(**inputs).split(), "--threads", 1, "--seed", 1]
    assert invoke(*command).exit_code == 0
    notes = Path("x", "model" if name == "pretrain" else "", "notes.txt")
    notes.write_text("precious")

    refused = invoke(*command, "--force")

    assert refused.exit_code == 1
    assert f"x exists and contains {notes.relative_to('x')}, which protembed did not write" in refused.stderr
    assert notes.read_text() == "precious"
    notes.unlink()
    monkeypatch.setattr("protembed.io.result.Result.claim", begin)  # which follows the check, and takes a second run
    replaced = invoke(*command, "--force")
    assert replaced.exit_code == 0, replaced.stderr
