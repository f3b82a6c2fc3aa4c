"""The loss of an encoder that learns from a teacher."""

import pytest
import torch
import torch.nn.functional as F

from protembed.data.alphabet import FIRST_AMINO_ACID
from protembed.data.batching import MicroBatchShape
from protembed.model.checkpoint import new_checkpoint
from protembed.training.objective import Distillation, MaskedLM


@pytest.fixture
def teacher(masked_lm):
    """A model of the same shape with other random weights, ten times as large."""
    checkpoint = new_checkpoint(masked_lm.encoder.shape, "gaussian", seed=5)
    with torch.no_grad():
        for weight in checkpoint.encoder.parameters():
            weight.mul_(10)
    return MaskedLM(checkpoint.encoder, checkpoint.require_lm_head())


@pytest.fixture
def distil(masked_lm, teacher):
    """Make the objective of a weight of the teacher, with the encoder of `masked_lm`."""
    return lambda weight: Distillation(masked_lm.encoder, masked_lm.lm_head, teacher.logits, weight)


def gradients_of(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()))


def test_the_loss_is_the_cross_entropy_with_the_mixture_of_truth_and_teacher(distil, masked_lm, teacher, twenty_masked):
    batch, weight = twenty_masked, 0.7
    truth = F.one_hot(batch.targets - FIRST_AMINO_ACID, 20)
    mixture = (1 - weight) * truth + weight * teacher.logits(batch).softmax(-1)
    expected = -(mixture * masked_lm.logits(batch).log_softmax(-1)).sum()

    loss = distil(weight)(batch)

    torch.testing.assert_close(loss.sum, expected)
    assert loss.count == 20


def test_without_weight_the_loss_and_its_gradients_are_those_without_a_teacher(distil, masked_lm, twenty_masked):
    distilled, plain = distil(0.0)(twenty_masked), masked_lm(twenty_masked)

    torch.testing.assert_close(distilled.sum, plain.sum)
    assert torch.equal(distilled.mask_token_sum, plain.mask_token_sum)
    pairs = zip(*(gradients_of(loss.sum, masked_lm) for loss in (distilled, plain)), strict=True)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in pairs)


def test_a_student_that_predicts_what_its_teacher_predicts_has_no_gradient(masked_lm, twenty_masked):
    objective = Distillation(masked_lm.encoder, masked_lm.lm_head, masked_lm.logits, 1.0)

    for gradient in gradients_of(objective(twenty_masked).sum, objective):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-5, rtol=0)


def test_the_padding_of_a_micro_batch_costs_nothing(distil, masked_lm, twenty_masked):
    shape = MicroBatchShape(num_tokens=512, num_crops=9, num_masked=128, longest=128, budget=500)
    plain, padded = (distil(0.7)(batch) for batch in (twenty_masked, shape.pad(twenty_masked)))

    torch.testing.assert_close(padded.sum, plain.sum)
    assert padded.count == plain.count


def test_the_teacher_is_neither_trained_nor_saved(distil, masked_lm, teacher, twenty_masked):
    objective = distil(0.7)

    objective(twenty_masked).sum.backward()

    assert all(weight.grad is None for weight in teacher.parameters())
    assert objective.state_dict().keys() == masked_lm.state_dict().keys()
