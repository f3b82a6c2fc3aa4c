import math
from pathlib import Path

import numpy as np
import pytest

from protembed.config.common import OptimizerConfig
from protembed.config.model_sizes import SIZES
from protembed.config.pretrain import PretrainOptions
from protembed.data.alphabet import NUM_AMINO_ACIDS
from protembed.evaluation.intervals import MetricWithInterval
from protembed.pretraining.amino_acids import AminoAcidPredictions
from protembed.pretraining.report import PretrainPlan
from protembed.pretraining.run_record import RunRecord
from protembed.training.checkpoints import TrainingProgress
from protembed.training.schedule import make_schedule

UNIGRAM, BIGRAM = 2.89, 2.88
NUM_STEPS, VALIDATE_EVERY = 100, 20


def log_of(num_steps, set_names, loss):
    """The lines of a run whose validation loss falls by a hundredth each time, to `loss` at its last step."""
    lines = []
    for step in range(1, num_steps + 1):
        line = {
            **{"step": step, "residues": 4000 * step, "train_loss": 2.7, "mask_token_loss": 2.8 + 1 / step},
            **{"learning_rate": 0.003, "grad_norm": 0.5 + 1 / step, "residues_per_second": 2000.0 + step},
        }
        if step % VALIDATE_EVERY == 0:
            valid_loss = loss + (NUM_STEPS - step) / VALIDATE_EVERY / 100
            for prefix in ("", *(f"{name}/" for name in set_names[1:])):
                line |= {f"{prefix}valid_loss": valid_loss, f"{prefix}valid_perplexity": math.exp(valid_loss)}
                line |= {f"{prefix}valid_accuracy": 0.12, f"{prefix}unigram_perplexity": math.exp(UNIGRAM)}
        lines.append(line)
    return lines


def skilled_predictions():
    """Predictions of a model that favours the masked amino acid a little, and its neighbour in the alphabet less."""
    rng = np.random.default_rng(0)
    targets = rng.integers(NUM_AMINO_ACIDS, size=2000)
    logits = rng.normal(0, 0.3, size=(2000, NUM_AMINO_ACIDS))
    logits[np.arange(2000), targets] += 1
    logits[np.arange(2000), (targets + 1) % NUM_AMINO_ACIDS] += 0.5
    predictions = AminoAcidPredictions.zero()
    predictions.add(targets, (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32))
    return predictions


@pytest.fixture(scope="session")
def make_run_record():
    """Make the record of a run of 100 steps that was stopped after some of them."""

    def make(
        step=NUM_STEPS, loss=2.7, gain=(0.15, 0.21), sets=("held_out",), fasta=("/data/proteins.fasta",), **changes
    ):
        schedule = make_schedule(
            OptimizerConfig(),
            NUM_STEPS,
            {"muon": 0.003},
            validate_every=VALIDATE_EVERY,
            patience=changes.get("patience"),
        )
        log = log_of(step, sets, loss)
        best = min((line for line in log if "valid_loss" in line), key=lambda line: line["valid_loss"], default=None)
        best_loss = None if best is None else best["valid_loss"]
        is_finished, references = step == NUM_STEPS, {"unigram": UNIGRAM, "bigram": BIGRAM}
        gains = {
            name: MetricWithInterval(value=reference - loss, low=gain[0], high=gain[1])
            for name, reference in references.items()
        }
        plan = PretrainPlan(
            **{"output": Path("/secret/folder/x.run"), "num_parameters": 1_268_833, "num_proteins": 284},
            **{"num_residues": 65_393, "num_clusters": None, "cropped_fraction": 0.4, "window_residues": 256},
            **{"valid_sets": dict.fromkeys(sets, 16), "references": dict.fromkeys(sets, references)},
            **{"num_steps": NUM_STEPS, "steps_per_pass": 15, "first_step": 0, "optimizer": "muon"},
            **{"precision": "float32", "learning_rate": 0.003, "disk_bytes": 1, "seconds": None},
            **{"memory_bytes": None, "warnings": []},
        )
        fields = {
            **{"fasta": [Path(path) for path in fasta], "options": PretrainOptions(), "shape": SIZES["t4_1M"]},
            **{"plan": plan, "schedule": schedule, "first_num_steps": None, "log": log},
            "progress": TrainingProgress(
                step=step,
                num_residues=4000 * step,
                best_loss=best_loss,
                best_step=None if best is None else best["step"],
            ),
            "gains": gains if is_finished else {},
            "amino_acids": None if best is None else skilled_predictions(),
            "composition": [1 / NUM_AMINO_ACIDS] * NUM_AMINO_ACIDS,
        }
        changes.pop("patience", None)
        return RunRecord(**fields | changes)

    return make
