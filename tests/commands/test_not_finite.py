"""Infinities and NaN: no command writes them to a result."""

import pytest
import torch
from typer.testing import CliRunner

from protembed.cli.app import app
from protembed.model.checkpoint import load_checkpoint, save_checkpoint

SMALL = "--batch-tokens 256 --crop-residues 48"


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--quiet")])


def damaged(directory, target, damage):
    """Write a copy of a model with damaged weights in its attention."""
    checkpoint = load_checkpoint(directory)
    with torch.no_grad():
        for layer in checkpoint.encoder.layers:
            damage(layer.attention.qkv)
    save_checkpoint(checkpoint, target, "# damaged\n")
    return target


def overflow(linear):
    """Make products of queries and keys overflow float32, although the weights are finite."""
    linear.weight.fill_(0.0)
    linear.bias.fill_(1e30)


def set_nan(linear):
    linear.bias[3] = float("nan")


@pytest.fixture(scope="module")
def tuned(labelled_tables, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("models") / "tuned"
    result = invoke(
        "finetune",
        labelled_tables / "regression.csv",
        "-m",
        tiny_model,
        "-o",
        output,
        "--method",
        "frozen",
        "--skip-random-baseline",
    )
    assert result.exit_code == 0
    return output


COMMANDS = {
    "embed": ("embed {i}/three.fasta -m {m} -o {o}/emb.npy", "the vectors of 'a' are not finite"),
    "residues": ("embed {i}/three.fasta -m {m} -o {o}/emb.h5 --per-residue", "the vectors of 'a' are not finite"),
    "predict": ("predict {i}/three.fasta -m {m} -o {o}/p.tsv", "the predictions of 'a' are not finite"),
    "score": ("score {i}/variants.csv -m {m} -o {o}/s.tsv", "K2A"),
    "attention": ("inspect-attention {i}/three.fasta -m {m} -o {o}/a.attention", "the attention of 'a' is not finite"),
    "frozen": (
        "finetune {t}/regression.csv -m {m} -o {o}/f.model --skip-random-baseline --method frozen",
        "not finite",
    ),
    "full": (
        "finetune {t}/regression.csv -m {m} -o {o}/f.model --skip-random-baseline --method full --epochs 1",
        "not finite",
    ),
    "from": ("pretrain {f} --init-from {m} -o {o}/r.run --steps 9 " + SMALL, "not finite"),
    "compare": ("pretrain {f} --compare-model {m} --size t4_1M -o {o}/r.run --steps 1 " + SMALL, "not finite"),
}
every_command = pytest.mark.parametrize(("command", "sentence"), COMMANDS.values(), ids=COMMANDS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "three.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMKTAYI\n>c\nMAAYIAKQRK\n")
    (folder / "variants.csv").write_text("sequence,mutation\nMKTAYIAKQR,K2A\n")
    return folder


@pytest.mark.promise(6)
@every_command
def test_values_that_overflow_are_an_error_that_names_them(
    command, sentence, inputs, labelled_tables, tuned, proteins_fasta, tmp_path
):
    model = damaged(tuned, tmp_path / "model", overflow)
    output = tmp_path / "out"
    output.mkdir()

    arguments = command.format(i=inputs, m=model, o=output, t=labelled_tables, f=proteins_fasta)
    result = invoke(*arguments.split())

    assert result.exit_code == 1, result.stderr
    assert sentence in result.stderr
    assert [path.name for path in output.rglob("*.safetensors")] == []
    assert {path.name for path in output.iterdir()} <= {"r.run", "f.model.partial"}


@pytest.mark.promise(6)
@every_command
def test_a_model_with_nan_in_its_weights_is_a_data_error(
    command, sentence, inputs, labelled_tables, tuned, proteins_fasta, tmp_path
):
    model = damaged(tuned, tmp_path / "model", set_nan)

    arguments = command.format(i=inputs, m=model, o=tmp_path, t=labelled_tables, f=proteins_fasta)
    result = invoke(*arguments.split())

    assert result.exit_code == 65
    assert "attention.self.query.bias holds values that are not finite" in result.stderr
