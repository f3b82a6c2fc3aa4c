import math

import pytest
import torch
import torch.nn.functional as F

from protembed.data.alphabet import AMINO_ACID_IDS, FIRST_AMINO_ACID, encode
from protembed.data.batching import labelled_packs
from protembed.model.heads import TaskHead
from protembed.model.pooling import pool as pool_residues
from protembed.training.distributed import Compute
from protembed.training.objectives import LossSum, WholeProtein, cross_entropy_sum, evaluate


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


# Masked residues


def test_the_masked_loss_is_the_cross_entropy_of_a_softmax_over_twenty_amino_acids(masked_lm, twenty):
    hidden = masked_lm.encoder(twenty.tokens, masked_lm.encoder.pack(twenty.offsets))
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


# Whole proteins


@pytest.fixture
def labelled(proteins):
    """Make one pack of three proteins with the labels given."""

    def make(labels):
        (batch,) = labelled_packs([encode(protein) for protein in proteins[2:5]], torch.tensor(labels), torch.arange(3))
        return batch

    return make


def pooled_by_hand(encoder, batch, layer):
    pack = encoder.pack(batch.offsets)
    return pool_residues(list(encoder.hidden_states(batch.tokens, pack))[layer], pack, "mean")


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_loss_of_classes_is_their_cross_entropy_from_the_pooled_layer(tiny_encoder, labelled, layer):
    head, batch = TaskHead(32, ["a", "b", "c"]), labelled([2, 0, 1])

    loss = WholeProtein(tiny_encoder, head, "mean", layer)(batch)

    logits = head(pooled_by_hand(tiny_encoder, batch, layer))
    assert loss.count == 3
    assert torch.allclose(loss.sum, F.cross_entropy(logits, batch.targets, reduction="sum"))


def test_the_loss_of_values_is_half_the_squared_error_in_standard_deviations(tiny_encoder, labelled):
    head, batch = TaskHead(32, None), labelled([30.0, 50.0, 90.0])
    head.offset.fill_(50.0)
    head.scale.fill_(20.0)

    loss = WholeProtein(tiny_encoder, head, "mean", None)(batch)

    output = head(pooled_by_hand(tiny_encoder, batch, 2))
    assert torch.allclose(loss.sum, ((output - torch.tensor([-1.0, 0, 2])) ** 2).sum() / 2)
    assert (loss.count, loss.num_correct) == (3, 0)


# Evaluation


def test_evaluation_counts_every_target_once_however_packs_are_divided(masked_lm, few, many, twenty, pool):
    together, apart = (
        evaluate(masked_lm, [twenty], Compute(pool=pool)),
        evaluate(masked_lm, [few, many], Compute(pool=pool)),
    )

    assert together.count == apart.count == 20
    assert torch.allclose(together.sum, apart.sum)
    assert together.num_correct == apart.num_correct


def test_evaluation_passes_over_a_pack_without_targets(masked_lm, few, nothing_hidden, pool):
    with_nothing, without = (
        evaluate(masked_lm, [nothing_hidden, few], Compute(pool=pool)),
        evaluate(masked_lm, [few], Compute(pool=pool)),
    )

    assert (with_nothing.count, with_nothing.sum) == (without.count, without.sum)


def test_evaluation_leaves_no_trace_in_the_model(masked_lm, few, pool, weights_of, same_bits):
    before = weights_of(masked_lm)

    evaluate(masked_lm, [few], Compute(pool=pool))

    assert same_bits(weights_of(masked_lm), before)
    assert all(parameter.grad is None for parameter in masked_lm.parameters())


def test_nothing_to_evaluate_is_an_error(masked_lm, pool):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(masked_lm, [], Compute(pool=pool))
