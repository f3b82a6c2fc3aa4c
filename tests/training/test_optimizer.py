import copy

import pytest
import torch

from protembed.training.distributed import Executor
from protembed.training.optimizer import GradientSum, make_optimizers, set_learning_rate

# Updates


def step(optimizers):
    for optimizer in optimizers:
        optimizer.step()


def updated(module, name, pool, *, weight_decay=0.0, learning_rate, gradient=0.0):
    """Take one step with the same gradient everywhere; return each parameter before and after."""
    optimizers = make_optimizers(module, name, weight_decay, Executor(pool=pool))
    set_learning_rate(optimizers, learning_rate)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    step(optimizers)
    return {name: (before[name], parameter.detach()) for name, parameter in module.named_parameters()}


LAYER_MATRICES = {
    f"encoder.layers.{layer}.{part}.weight"
    for layer in range(2)
    for part in ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")
}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_matrices_are_decayed_not_biases_gammas_betas_or_embeddings(masked_lm, name, pool):
    with torch.no_grad():
        for parameter in masked_lm.parameters():
            parameter.add_(1.0)

    pairs = updated(masked_lm, name, pool, weight_decay=0.5, learning_rate=0.1)

    decayed = {name for name, (before, after) in pairs.items() if not torch.equal(before, after)}
    assert decayed == {*LAYER_MATRICES, "lm_head.dense.weight"}
    assert all(torch.allclose(after, 0.95 * before) for before, after in (pairs[name] for name in decayed))


def test_the_first_step_of_adamw_moves_every_number_by_the_learning_rate(masked_lm, pool):
    pairs = updated(masked_lm, "adamw", pool, learning_rate=0.01, gradient=3.0)

    assert all(torch.allclose(before - after, torch.tensor(0.01), atol=1e-5) for before, after in pairs.values())


def test_muon_updates_the_matrices_of_the_layers_and_adamw_the_rest(masked_lm, pool):
    muon, adamw = make_optimizers(masked_lm, "muon", 0.0, Executor(pool=pool))
    names = {parameter: name for name, parameter in masked_lm.named_parameters()}

    taken, left = (
        {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
        for optimizer in (muon, adamw)
    )

    assert taken == LAYER_MATRICES
    assert left == set(names.values()) - LAYER_MATRICES


def test_the_second_sgd_step_has_no_momentum(masked_lm, pool):
    optimizers = make_optimizers(masked_lm, "sgd", 0.5, Executor(pool=pool))
    set_learning_rate(optimizers, 0.1)
    for _ in range(2):
        before = [parameter.detach().clone() for parameter in masked_lm.parameters()]
        for parameter in masked_lm.parameters():
            parameter.grad = torch.full_like(parameter, 0.7)
        step(optimizers)

    for old, new in zip(before, masked_lm.parameters(), strict=True):
        assert torch.equal(new, torch.add(old, torch.full_like(old, 0.7), alpha=-0.1))


def changes(module, optimizers):
    """Take one step with the same gradient everywhere; return the largest change of each parameter."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 0.7)
    step(optimizers)
    return {name: (before[name] - value).abs().max().item() for name, value in module.named_parameters()}


@pytest.mark.parametrize(("name", "moved"), [("sgd", 0.7 * 0.01), ("adamw", 0.01), ("muon", 0.01)])
def test_the_head_multiplier_scales_the_steps_of_the_head_alone(masked_lm, name, moved, pool):
    alike = copy.deepcopy(masked_lm)
    optimizers = make_optimizers(
        masked_lm, name, 0.0, Executor(pool=pool), head=masked_lm.lm_head, head_lr_multiplier=10.0
    )
    plain = make_optimizers(alike, name, 0.0, Executor(pool=pool))
    for some in (optimizers, plain):
        set_learning_rate(some, 0.01)

    moved_by, expected = changes(masked_lm, optimizers), changes(alike, plain)

    # The biases of the head are up to a hundred, which float32 resolves to about 1e-5.
    assert {name: moved_by[name] for name in moved_by if not name.startswith("lm_head")} == {
        name: expected[name] for name in expected if not name.startswith("lm_head")
    }
    head = [value for name, value in moved_by.items() if name.startswith("lm_head")]
    assert head == pytest.approx([10 * moved] * len(head), abs=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_every_trained_parameter_is_updated_by_exactly_one_optimiser(masked_lm, name, pool):
    optimizers = make_optimizers(
        masked_lm, name, 0.1, Executor(pool=pool), head=masked_lm.lm_head, head_lr_multiplier=3.0
    )

    taken = [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]

    assert len(taken) == len(set(taken))
    assert set(taken) == set(masked_lm.parameters())


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_frozen_parameters_are_neither_updated_nor_decayed(masked_lm, name, pool):
    frozen = [name for name, _ in masked_lm.named_parameters() if "layers.0" in name or "embedding" in name]
    for parameter_name in frozen:
        masked_lm.get_parameter(parameter_name).requires_grad_(False)
    optimizers = make_optimizers(
        masked_lm, name, 0.5, Executor(pool=pool), head=masked_lm.lm_head, head_lr_multiplier=2.0
    )
    set_learning_rate(optimizers, 0.1)

    moved = changes(masked_lm, optimizers)

    assert {name for name, change in moved.items() if change == 0} == set(frozen)


# Gradients of several micro-batches


def total_of(*micro_batches):
    total = GradientSum()
    for gradients in micro_batches:
        total.add(gradients)
    return total


def assigned(total, num_parameters):
    parameters = [torch.zeros(2) for _ in range(num_parameters)]
    total.assign_to(parameters)
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]


def test_gradients_of_micro_batches_are_summed_and_divided_once():
    total = total_of([torch.tensor([1.0, 2]), None], [torch.tensor([3.0, 4]), None])

    total.divide(2)

    assert assigned(total, 2) == [[2.0, 3.0], None]


def test_the_norm_is_taken_over_all_gradients():
    total = total_of([torch.tensor([6.0, 0]), None, torch.tensor([0.0, 8])])

    assert total.divide(2).item() == pytest.approx(5.0)


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, [0.6, 0.8]), (5.5, [3.0, 4.0]), (100.0, [3.0, 4.0])])
def test_clipping_reduces_the_norm_to_the_maximum_and_never_increases_it(max_norm, expected):
    total = total_of([torch.tensor([3.0, 4.0])])

    total.clip(total.divide(1), max_norm)

    assert assigned(total, 1)[0] == pytest.approx(expected, rel=1e-5)
