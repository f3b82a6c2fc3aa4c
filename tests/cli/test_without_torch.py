"""What can be refused, or is done, is known before torch is imported, which takes two seconds."""

import json
import subprocess
import sys

import pytest

MODEL = ("-m", "predictor")
COMMANDS = {
    "embed": ("embed", "small.fasta", *MODEL, "-o", "emb.npy"),
    "report": ("embed", "small.fasta", *MODEL, "-o", "reported.npy", "--report"),
    "per residue": ("embed", "small.fasta", *MODEL, "-o", "emb.h5", "--per-residue"),
    "pretrain": "pretrain small.fasta -o run --size t4_1M --steps 1 --batch-tokens 128 --crop-residues 32".split(),
    "finetune": ("finetune", "small.csv", *MODEL, "-o", "fine.model", "--method", "frozen", "--skip-random-baseline"),
    "predict": ("predict", "small.fasta", *MODEL, "-o", "predicted.tsv"),
    "score": ("score", "variants.csv", *MODEL, "-o", "scores.tsv"),
    "score of sequences": ("score", "small.fasta", *MODEL, "-o", "likelihoods.tsv"),
    "inspect-attention": ("inspect-attention", "small.fasta", *MODEL, "-o", "att", "--save-maps", "0"),
}
# The commands share a process, in which no command imports torch.
RUN_EACH = """
import json, sys
from typer.testing import CliRunner
from protembed.cli.app import app

for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(app, arguments)
    has_torch = "torch" in sys.modules
    print(json.dumps([result.exit_code, result.stderr, has_torch]))
"""


@pytest.fixture(scope="module")
def finished(invoke, small_fasta, small_table, small_variants, predictor, tmp_path_factory):
    """Results of all commands in one folder."""
    folder = tmp_path_factory.mktemp("finished")
    for name, source in {"small.fasta": small_fasta, "small.csv": small_table, "variants.csv": small_variants}.items():
        (folder / name).write_bytes(source.read_bytes())
    (folder / "predictor").symlink_to(predictor)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in COMMANDS.values():
            result = invoke(*command)
            assert result.exit_code == 0, result.output
    return folder


def run_each(commands, folder):
    result = subprocess.run(
        [sys.executable, "-c", RUN_EACH],
        input=json.dumps(list(map(list, commands))),
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_finished_results_are_found_without_torch(finished):
    for name, (status, stderr, has_torch) in zip(COMMANDS, run_each(COMMANDS.values(), finished), strict=True):
        assert (status, has_torch) == (0, False), (name, stderr)
        assert "is already up to date" in stderr, name


def test_a_missing_input_a_wrong_option_and_another_result_are_refused_without_torch(finished):
    missing = [
        [word.replace("small", "no").replace("variants", "no") for word in command] for command in COMMANDS.values()
    ]
    missing = [[word.replace("emb.", "new.").replace("run", "new") for word in command] for command in missing]
    wrong = [[*command, "--no-such-option"] for command in COMMANDS.values()]
    changed = [
        [*COMMANDS["embed"], "--layer", "0"],
        [*COMMANDS["predict"], "--region", "1-20"],
        [*COMMANDS["score"], "--method", "wildtype-marginals"],
        [*COMMANDS["pretrain"], "--seed", "1"],
        [*COMMANDS["finetune"], "--seed", "1"],
        [*COMMANDS["inspect-attention"], "--heads", "1"],
    ]
    expected = [66] * len(missing) + [2] * len(wrong) + [1] * len(changed)

    found = run_each([*missing, *wrong, *changed], finished)

    assert [status for status, _, _ in found] == expected, [stderr for _, stderr, _ in found]
    assert not any(has_torch for _, _, has_torch in found)


def test_a_model_without_a_head_and_an_invalid_record_are_refused_without_torch(finished):
    (finished / "bad.fasta").write_text(">a\nMKT1\n")

    (finished / "bad.csv").write_text("mutant,sequence\nA2G,MKT\n")

    commands = [
        ("predict", "small.fasta"),
        ("embed", "bad.fasta"),
        ("score", "bad.csv"),
        ("score", "small.fasta", "--fill"),
        ("score", "small.fasta", "--fill", "--samples", "2", "--top", "3"),
        ("embed", "small.fasta", "--layer", "99"),
    ]
    found = run_each(commands, finished)

    assert [(status, has_torch) for status, _, has_torch in found] == [
        (66, False),
        (65, False),
        (65, False),
        (65, False),
        (2, False),
        (2, False),
    ]


def test_faults_of_tables_are_refused_without_torch(finished):
    (finished / "hole.csv").write_text("id,sequence,label\na,MKTAY,1\nb,,2\nc,MK?AY,3\n")
    (finished / "swapped.csv").write_text("mutant,sequence\nA1W,MKTAY\nW2del,MKTAY\n")
    commands = [
        ["predict", "hole.csv", *MODEL, "-o", "hole.tsv"],
        ["finetune", "hole.csv", *MODEL, "-o", "hole.model"],
        ["score", "swapped.csv", *MODEL, "-o", "swapped.tsv"],
    ]

    for command, (status, stderr, has_torch) in zip(commands, run_each(commands, finished), strict=True):
        assert (status, has_torch) == (65, False), (command, stderr)
        assert "2 faults: line " in stderr
    assert not [path for path in finished.iterdir() if path.stem in ("hole", "swapped") and path.suffix != ".csv"]
