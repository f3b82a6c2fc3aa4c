"""Pretraining with a teacher."""

import numpy as np
import pytest
import torch

from protembed import AMINO_ACIDS, Callbacks, PretrainOptions, load_model, pretrain_model
from protembed.data.alphabet import TOKENS
from protembed.errors import InputNotFoundError, RunMismatchError
from protembed.model.checkpoint import load_checkpoint, save_checkpoint

SHAPE = {"layers": 2, "dim": 32, "heads": 4}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, tiny_model):
    """A model that predicts tryptophan nearly everywhere."""
    checkpoint = load_checkpoint(tiny_model)
    with torch.no_grad():
        checkpoint.require_lm_head().bias[TOKENS.index("W")] = 6
    directory = tmp_path_factory.mktemp("models") / "teacher"
    save_checkpoint(checkpoint, directory)
    return directory


@pytest.fixture
def make_options(teacher):
    """Make the options of a short run with the teacher."""

    def make(output, **values):
        settings = {"steps": 30, "batch_tokens": 512, "crop_residues": 64, "teacher": teacher, "teacher_weight": 1.0}
        return PretrainOptions.from_values(output=output, threads=1, **SHAPE, **settings | values)

    return make


def probability_of_tryptophan(model):
    log_probs = load_model(model).log_probs("MKTAYIAKQRQISFVKSHFSRQ")  # (residues, amino acids)
    return np.exp(log_probs[:, AMINO_ACIDS.index("W")]).mean()


def test_a_student_learns_what_its_teacher_predicts(make_options, proteins_fasta, tmp_path):
    for name, teacher in (("taught", {}), ("alone", {"teacher": None, "teacher_weight": 0.9})):
        pretrain_model([proteins_fasta], make_options(tmp_path / name, learning_rate=0.02, **teacher))

    assert probability_of_tryptophan(tmp_path / "taught") > 0.5
    assert probability_of_tryptophan(tmp_path / "alone") < 0.1


def test_a_run_with_a_teacher_names_it_and_resumes_with_the_same_bits(make_options, proteins_fasta, tmp_path, teacher):
    settings = {"steps": 4, "save_every": 2, "teacher_weight": 0.5}
    pretrain_model([proteins_fasta], make_options(tmp_path / "whole", **settings))
    steps = []
    stop = Callbacks(on_step=steps.append, stop=lambda: len(steps) == 2)
    assert not pretrain_model([proteins_fasta], make_options(tmp_path / "parts", **settings), stop).is_finished
    with pytest.raises(RunMismatchError, match="the teacher differs"):
        pretrain_model([proteins_fasta], make_options(tmp_path / "parts", **settings | {"teacher": None}))
    assert pretrain_model([proteins_fasta], make_options(tmp_path / "parts", **settings)).is_finished

    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    assert "| teacher | teacher, weight 0.5 |" in (tmp_path / "whole" / "model" / "README.md").read_text()
    assert "teacher, weight 0.5, the true amino acids 0.5" in (tmp_path / "whole" / "report.html").read_text()


def test_a_teacher_that_does_not_exist_is_an_error_before_any_work(make_options, proteins_fasta, tmp_path):
    with pytest.raises(InputNotFoundError, match="nowhere"):
        pretrain_model([proteins_fasta], make_options(tmp_path / "new.run", teacher=tmp_path / "nowhere"))

    assert not (tmp_path / "new.run").exists()
