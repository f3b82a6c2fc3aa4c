import math
from dataclasses import replace

import pytest
import torch

from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID, MASK
from protembed.data.batching import MicroBatchShape
from protembed.training import objective
from protembed.training.distributed import Executor
from protembed.training.objective import LossSum, cross_entropy_sum, evaluate


def gradients_of(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


def all_close(first, second):
    return all(torch.allclose(*pair, atol=1e-6) for pair in zip(first, second, strict=True))


# Cross-entropy


def test_a_residue_predicted_with_probability_57_percent_costs_0_562_nats():
    probabilities = torch.full((1, 20), 0.43 / 19)
    probabilities[0, 7] = 0.57

    loss = cross_entropy_sum(probabilities.log(), torch.tensor([7]))

    assert loss.mean().item() == pytest.approx(-math.log(0.57))
    assert round(loss.mean().item(), 3) == 0.562


def test_a_target_whose_most_probable_class_is_true_counts_as_correct():
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 2, 1]])

    assert cross_entropy_sum(logits, torch.tensor([0, 1, 1])).num_correct == 2


def test_losses_are_added_by_sum_and_count_and_divided_once():
    first, second = (LossSum(torch.tensor(loss), count, torch.tensor(1)) for loss, count in ((6.0, 3), (17.0, 17)))

    total = first + second

    assert (total.sum, total.count, total.num_correct) == (23, 20, 2)
    assert total.mean().item() == pytest.approx(23 / 20)


def test_class_weights_multiply_the_loss_of_each_target_and_not_the_count():
    logits, targets = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 2, 1]]), torch.tensor([0, 1, 1])
    costs = -logits.log_softmax(-1)[range(3), targets]

    loss = cross_entropy_sum(logits, targets, torch.tensor([0.5, 3.0, 7.0]))

    assert torch.allclose(loss.sum, 0.5 * costs[0] + 3 * costs[1] + 3 * costs[2])
    assert loss.count == 3


# Masked residues


def test_the_masked_loss_is_the_cross_entropy_of_a_softmax_over_twenty_amino_acids(masked_lm, twenty_masked):
    hidden = masked_lm.encoder(twenty_masked.tokens, masked_lm.encoder.layout(twenty_masked.offsets))
    logits = masked_lm.lm_head(hidden, masked_lm.encoder.embedding.weight)[twenty_masked.positions]  # (masked, 33)
    twenty_probs = logits[:, AMINO_ACID_IDS].exp() / logits[:, AMINO_ACID_IDS].exp().sum(1, keepdim=True)
    all_probs = logits.exp() / logits.exp().sum(1, keepdim=True)
    true = twenty_probs[torch.arange(20), twenty_masked.targets - FIRST_AMINO_ACID]

    loss = masked_lm(twenty_masked)

    assert loss.count == 20
    assert torch.allclose(loss.sum, -true.log().sum())
    assert torch.allclose(all_probs[:, AMINO_ACID_IDS], twenty_probs)


def test_the_masked_loss_and_its_gradients_are_those_of_states_computed_for_all_tokens(masked_lm, twenty_masked):
    batch = twenty_masked
    hidden = masked_lm.encoder(batch.tokens, masked_lm.encoder.layout(batch.offsets))  # (tokens, dim)
    logits = masked_lm.lm_head(hidden[batch.positions], masked_lm.encoder.embedding.weight, AMINO_ACID_IDS)

    loss, expected = masked_lm(batch), masked_lm.loss(logits, batch)

    assert torch.allclose(loss.sum, expected.sum)
    assert all_close(*(gradients_of(one.sum, masked_lm) for one in (loss, expected)))


def test_the_masked_loss_ignores_the_logits_of_other_tokens(masked_lm, twenty_masked):
    before = masked_lm(twenty_masked).sum.item()

    with torch.no_grad():
        masked_lm.lm_head.bias[masked_lm.lm_head.bias == -100] = 100.0

    assert masked_lm(twenty_masked).sum.item() == before


def test_two_micro_batches_of_three_and_seventeen_targets_have_the_loss_of_one_of_twenty(
    masked_lm, three_masked, seventeen_masked, twenty_masked
):
    assert (three_masked.targets.numel(), seventeen_masked.targets.numel()) == (3, 17)
    whole, parts = masked_lm(twenty_masked), [masked_lm(three_masked), masked_lm(seventeen_masked)]
    mean = sum(part.sum for part in parts) / sum(part.count for part in parts)
    mean_of_means = sum(part.mean() for part in parts) / 2

    gradients = [gradients_of(loss, masked_lm) for loss in (whole.mean(), mean, mean_of_means)]

    assert torch.allclose(whole.mean(), mean)
    assert all_close(gradients[0], gradients[1])
    assert not torch.allclose(whole.mean(), mean_of_means)
    assert not all_close(gradients[0], gradients[2])


def test_the_loss_behind_mask_tokens_leaves_out_targets_that_show_a_residue(masked_lm, three_masked):
    tokens = three_masked.tokens.clone()
    tokens[three_masked.positions[:2]] = three_masked.targets[:2]  # kept, as a tenth of the targets is in training
    partly_masked = replace(three_masked, tokens=tokens)

    whole, part = masked_lm(three_masked), masked_lm(partly_masked)

    assert (whole.num_mask_tokens, part.num_mask_tokens, part.count) == (3, 1, 3)
    assert torch.allclose(whole.mask_token_sum, whole.sum)
    assert torch.allclose(part.mask_token_sum, masked_lm.nats(partly_masked)[2])
    assert not part.mask_token_sum.requires_grad


def test_every_tensor_of_a_batch_is_moved_by_the_copy_that_does_not_block(masked_lm, three_masked, monkeypatch):
    moved = []
    monkeypatch.setattr(objective, "to_device", lambda tensor, device: moved.append(tensor) or tensor)

    masked_lm(three_masked)

    assert any(tensor is three_masked.tokens for tensor in moved)
    assert any(tensor is three_masked.targets for tensor in moved)
    assert any(tensor.dtype == torch.bool for tensor in moved)


# Micro-batches of one shape

SHAPE = MicroBatchShape(num_tokens=512, num_crops=9, num_masked=128, longest=128, budget=500)


@pytest.mark.parametrize("batch_name", ["three_masked", "seventeen_masked", "twenty_masked"])
def test_a_padded_micro_batch_has_the_loss_and_the_gradients_of_the_plain_one(masked_lm, request, batch_name):
    batch = request.getfixturevalue(batch_name)
    padded = SHAPE.pad(batch)
    assert padded.longest is not None

    plain, fixed = masked_lm(batch), masked_lm(padded)

    assert torch.allclose(plain.sum, fixed.sum, rtol=1e-5, atol=1e-5)
    assert torch.allclose(plain.mask_token_sum, fixed.mask_token_sum, rtol=1e-5, atol=1e-5)
    assert (plain.count, plain.num_mask_tokens) == (fixed.count, fixed.num_mask_tokens)
    assert plain.num_correct == fixed.num_correct
    pairs = zip(*(gradients_of(loss.sum, masked_lm) for loss in (plain, fixed)), strict=True)
    assert all(torch.allclose(*pair, rtol=1e-5, atol=1e-5) for pair in pairs)


def test_a_micro_batch_of_dummies_costs_nothing_and_has_no_targets(masked_lm):
    loss = masked_lm(SHAPE.dummy())

    assert (loss.count, loss.num_mask_tokens, loss.sum) == (0, 0, 0)
    assert all((gradient == 0).all() for gradient in gradients_of(loss.sum, masked_lm))


def test_a_crop_that_ends_in_a_mask_token_does_not_count_the_positions_that_repeat_it(masked_lm, three_masked):
    last = int(three_masked.positions[-1])
    cropped = replace(
        three_masked, tokens=three_masked.tokens[: last + 1], offsets=torch.tensor([0, last + 1]), num_residues=last
    )
    # No token is left for dummies, so the added positions repeat the masked one.
    padded = replace(SHAPE, num_tokens=last + 1, num_masked=8).pad(cropped)

    loss = masked_lm(padded)

    assert padded.tokens[-1] == MASK
    assert (len(padded.positions), loss.count, loss.num_mask_tokens) == (8, 3, 3)


# Evaluation


def test_evaluation_does_not_depend_on_the_division_into_batches(
    masked_lm, three_masked, seventeen_masked, twenty_masked, pool
):
    together, apart = (
        evaluate(masked_lm, [twenty_masked], Executor(pool=pool)),
        evaluate(masked_lm, [three_masked, seventeen_masked], Executor(pool=pool)),
    )

    assert together.count == apart.count == 20
    assert torch.allclose(together.sum, apart.sum)
    assert together.num_correct == apart.num_correct


def test_evaluation_ignores_a_batch_without_targets(masked_lm, three_masked, none_masked, pool):
    with_empty, alone = (
        evaluate(masked_lm, [none_masked, three_masked], Executor(pool=pool)),
        evaluate(masked_lm, [three_masked], Executor(pool=pool)),
    )

    assert (with_empty.count, with_empty.sum) == (alone.count, alone.sum)


def test_evaluation_changes_neither_weights_nor_gradients(masked_lm, three_masked, pool, copy_weights, have_same_bits):
    before = copy_weights(masked_lm)

    evaluate(masked_lm, [three_masked], Executor(pool=pool))

    assert have_same_bits(copy_weights(masked_lm), before)
    assert all(parameter.grad is None for parameter in masked_lm.parameters())


def test_evaluating_no_batch_is_an_error(masked_lm, pool):
    with pytest.raises(ValueError, match="no batch to evaluate"):
        evaluate(masked_lm, [], Executor(pool=pool))
