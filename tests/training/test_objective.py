import math

import pytest
import torch

from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID
from protembed.training.distributed import Executor
from protembed.training.objective import LossSum, cross_entropy_sum, evaluate


def gradients_of(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


def all_close(gradients, others):
    return all(torch.allclose(*pair, atol=1e-6) for pair in zip(gradients, others, strict=True))


# Cross-entropy


def test_a_true_residue_predicted_with_probability_57_percent_costs_562_thousandths_of_a_nat():
    probabilities = torch.full((1, 20), 0.43 / 19)
    probabilities[0, 7] = 0.57

    loss = cross_entropy_sum(probabilities.log(), torch.tensor([7]))

    assert loss.mean().item() == pytest.approx(-math.log(0.57))
    assert round(loss.mean().item(), 3) == 0.562


def test_the_likeliest_class_counts_as_correct_where_it_is_the_true_one():
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 2, 1]])

    assert cross_entropy_sum(logits, torch.tensor([0, 1, 1])).num_correct == 2


def test_sum_and_count_are_carried_apart_and_divided_once():
    one, other = (LossSum(torch.tensor(total), count, torch.tensor(1)) for total, count in ((6.0, 3), (17.0, 17)))

    total = one + other

    assert (total.sum, total.count, total.num_correct) == (23, 20, 2)
    assert total.mean().item() == pytest.approx(23 / 20)


def test_weights_of_classes_multiply_what_each_target_costs_and_not_the_count():
    logits, targets = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 2, 1]]), torch.tensor([0, 1, 1])
    costs = -logits.log_softmax(-1)[range(3), targets]

    loss = cross_entropy_sum(logits, targets, torch.tensor([0.5, 3.0, 7.0]))

    assert torch.allclose(loss.sum, 0.5 * costs[0] + 3 * costs[1] + 3 * costs[2])
    assert loss.count == 3


# Masked residues


def test_the_masked_loss_is_the_cross_entropy_of_a_softmax_over_twenty_amino_acids(masked_lm, twenty):
    hidden = masked_lm.encoder(twenty.tokens, masked_lm.encoder.layout(twenty.offsets))
    logits = masked_lm.lm_head(hidden, masked_lm.encoder.embedding.weight)[twenty.positions]  # (masked, 33)
    of_twenty = logits[:, AMINO_ACID_IDS].exp() / logits[:, AMINO_ACID_IDS].exp().sum(1, keepdim=True)
    of_all = logits.exp() / logits.exp().sum(1, keepdim=True)
    true = of_twenty[torch.arange(20), twenty.targets - FIRST_AMINO_ACID]

    loss = masked_lm(twenty)

    assert loss.count == 20
    assert torch.allclose(loss.sum, -true.log().sum())
    assert torch.allclose(of_all[:, AMINO_ACID_IDS], of_twenty)


def test_the_masked_loss_leaves_the_other_tokens_out_of_the_softmax(masked_lm, twenty):
    before = masked_lm(twenty).sum.item()

    with torch.no_grad():
        masked_lm.lm_head.bias[masked_lm.lm_head.bias == -100] = 100.0

    assert masked_lm(twenty).sum.item() == before


def test_three_and_seventeen_masked_tokens_in_two_packs_are_one_batch_of_twenty(masked_lm, few, many, twenty):
    assert (few.targets.numel(), many.targets.numel()) == (3, 17)
    whole, parts = masked_lm(twenty), [masked_lm(few), masked_lm(many)]
    mean = sum(part.sum for part in parts) / sum(part.count for part in parts)
    mean_of_means = sum(part.mean() for part in parts) / 2

    gradients = [gradients_of(loss, masked_lm) for loss in (whole.mean(), mean, mean_of_means)]

    assert torch.allclose(whole.mean(), mean)
    assert all_close(gradients[0], gradients[1])
    assert not torch.allclose(whole.mean(), mean_of_means)
    assert not all_close(gradients[0], gradients[2])


# Evaluation


def test_evaluation_counts_every_target_once_however_packs_are_divided(masked_lm, few, many, twenty, pool):
    together, apart = (
        evaluate(masked_lm, [twenty], Executor(pool=pool)),
        evaluate(masked_lm, [few, many], Executor(pool=pool)),
    )

    assert together.count == apart.count == 20
    assert torch.allclose(together.sum, apart.sum)
    assert together.num_correct == apart.num_correct


def test_evaluation_passes_over_a_pack_without_targets(masked_lm, few, nothing_hidden, pool):
    with_nothing, without = (
        evaluate(masked_lm, [nothing_hidden, few], Executor(pool=pool)),
        evaluate(masked_lm, [few], Executor(pool=pool)),
    )

    assert (with_nothing.count, with_nothing.sum) == (without.count, without.sum)


def test_evaluation_leaves_no_trace_in_the_model(masked_lm, few, pool, weights_of, same_bits):
    before = weights_of(masked_lm)

    evaluate(masked_lm, [few], Executor(pool=pool))

    assert same_bits(weights_of(masked_lm), before)
    assert all(parameter.grad is None for parameter in masked_lm.parameters())


def test_nothing_to_evaluate_is_an_error(masked_lm, pool):
    with pytest.raises(ValueError, match="no batch to evaluate"):
        evaluate(masked_lm, [], Executor(pool=pool))
