"""Tests that need a GPU; skipped without one."""

import pytest
import torch

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.device import WorkerPool
from protembed.pretraining.batches import PretrainingBatches
from protembed.pretraining.compilation import compile_training
from protembed.training.compilation import compiler_directory
from protembed.training.distributed import Executor
from protembed.training.loop import TrainingSetup, take_step
from protembed.training.objective import MaskedLM
from protembed.training.optimizer import make_optimizers, set_learning_rate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def test_the_kernel_for_all_proteins_equals_attention_protein_by_protein(tiny_encoder, whole_batch, proteins):
    batch, encoder = whole_batch(proteins[:7]), tiny_encoder.to("cuda")
    layout = encoder.layout(batch.offsets)

    with torch.inference_mode():
        expected = encoder(batch.tokens.to("cuda"), layout)
        with torch.autocast("cuda", torch.bfloat16):
            hidden = encoder(batch.tokens.to("cuda"), layout)

    assert layout.is_varlen
    assert torch.allclose(hidden, expected, atol=0.05)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_step_in_bfloat16_on_a_gpu_is_close_to_one_in_float32_on_a_cpu(tiny_checkpoint, corpus, optimizer):
    plan = PretrainingBatches(corpus, BatchConfig(batch_tokens=2048), 1024, MaskingConfig(), seed=0)
    losses = []
    for device, precision in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        objective = MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head).to(device)
        with WorkerPool(1) as pool:
            compute = Executor(pool=pool, precision=precision)
            optimizers = make_optimizers(objective, optimizer, 0.01, compute)
            set_learning_rate(optimizers, 0.0)
            training = TrainingSetup(
                objective=objective, micro_batches=plan.micro_batches, optimizers=optimizers, executor=compute
            )
            losses.append(take_step(training, plan.micro_batches(0), 1.0).loss)

    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_a_step_with_compiled_layers_is_close_to_one_without(tiny_checkpoint, corpus):
    device = torch.device("cuda")
    batches = PretrainingBatches(corpus, BatchConfig(batch_tokens=2048), 1024, MaskingConfig(), seed=0)
    losses = []
    with compiler_directory(device), WorkerPool(1) as pool:
        for option in ("never", "auto"):
            objective = MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head).to(device)
            executor = Executor(pool=pool, precision=torch.bfloat16)
            micro_batches, warnings = compile_training(objective, batches, executor, option)
            optimizers = make_optimizers(objective, "adamw", 0.01, executor)
            set_learning_rate(optimizers, 0.0)
            training = TrainingSetup(
                objective=objective, micro_batches=micro_batches, optimizers=optimizers, executor=executor
            )
            losses.append(take_step(training, micro_batches(0), 1.0).loss)
            assert warnings == []

    assert losses[1] == pytest.approx(losses[0], rel=0.01)
