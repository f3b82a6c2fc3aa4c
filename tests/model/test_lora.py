import copy

import pytest
import torch
from torch.nn.utils import parametrize

from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.model.checkpoint import load_checkpoint, save_checkpoint
from protembed.model.lora import add_adapters, merge_adapters

RANK = 3
PARTS = {
    ESM2Shape: ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"),
    ESMCShape: ("attention.qkv", "attention.out", "feed_forward.gate", "feed_forward.up", "feed_forward.down"),
}


def matrices(encoder):
    return {f"layers.{layer}.{part}" for layer in range(2) for part in PARTS[type(encoder.shape)]}


def adapters(encoder):
    names = matrices(encoder)
    return {f"{name}.parametrizations.weight.0.{part}" for name in names for part in ("down", "up")}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def adapted(family_encoder):
    """A copy of a tiny encoder with untrained adapters."""
    encoder = copy.deepcopy(family_encoder)
    add_adapters(encoder, RANK, generator())
    return encoder


def give_random_values(encoder):
    """Give the adapters random weights, as if they were trained."""
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name in adapters(encoder):
                parameter.normal_(std=0.1, generator=generator(len(name)))


@torch.no_grad()
def outputs_of(encoder, batch):
    return encoder(batch.tokens, encoder.layout(batch.offsets))


@pytest.fixture(scope="module")
def batch(whole_batch, proteins):
    return whole_batch(proteins[2:5])


def test_adapters_change_no_output_before_training(adapted, family_encoder, batch):
    assert torch.equal(outputs_of(adapted, batch), outputs_of(family_encoder, batch))


def test_only_adapters_are_trained(adapted):
    trained = {name: tuple(value.shape) for name, value in adapted.named_parameters() if value.requires_grad}

    assert trained.keys() == adapters(adapted)
    assert trained["layers.0.feed_forward.up.parametrizations.weight.0.down"] == (RANK, 32)
    assert trained["layers.0.feed_forward.up.parametrizations.weight.0.up"] == (adapted.shape.feed_forward_dim, RANK)
    assert sum(value.requires_grad for value in adapted.parameters()) < len(list(adapted.parameters()))


def test_an_adapter_adds_twice_the_product_of_its_two_matrices(adapted, family_encoder):
    give_random_values(adapted)

    linear, original = adapted.layers[1].attention.out, family_encoder.layers[1].attention.out.weight
    low_rank = linear.parametrizations.weight[0]

    assert torch.allclose(linear.weight, original + 2 * low_rank.up @ low_rank.down)
    assert torch.linalg.matrix_rank(linear.weight - original, rtol=1e-4) == RANK


def test_initial_adapters_are_a_function_of_the_seed(family_encoder):
    encoders = [copy.deepcopy(family_encoder) for _ in range(3)]
    for encoder, seed in zip(encoders, (0, 0, 1), strict=True):
        add_adapters(encoder, RANK, generator(seed))
    one, same, other = (encoder.state_dict() for encoder in encoders)

    downs = [name for name in adapters(encoders[0]) if name.endswith("down")]
    assert all(torch.equal(one[name], same[name]) for name in downs)
    assert not any(torch.equal(one[name], other[name]) for name in downs)
    assert not any(one[name].any() for name in adapters(encoders[0]) if name.endswith("up"))


def test_merging_adapters_changes_no_output(adapted, family_encoder, batch):
    give_random_values(adapted)
    before = outputs_of(adapted, batch)

    merge_adapters(adapted)

    assert torch.allclose(outputs_of(adapted, batch), before, rtol=0, atol=1e-6)
    assert not torch.allclose(before, outputs_of(family_encoder, batch), atol=1e-2)


def learn(encoder, batch, num_steps=4):
    """Take a few steps with weight decay."""
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    for _ in range(num_steps):
        optimizer.zero_grad()
        encoder(batch.tokens, encoder.layout(batch.offsets)).pow(3).sum().backward()
        optimizer.step()


def test_frozen_weights_keep_their_bits_in_training(adapted, family_encoder, batch):
    learn(adapted, batch)
    merge_adapters(adapted)

    before, after = family_encoder.state_dict(), adapted.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed == {f"{name}.weight" for name in matrices(adapted)}


def test_the_original_matrices_are_kept_until_adapters_are_merged(adapted, family_encoder, batch):
    learn(adapted, batch)

    before, now = family_encoder.state_dict(), adapted.state_dict()
    for name in matrices(adapted):
        assert torch.equal(now[f"{name}.parametrizations.weight.original"], before[f"{name}.weight"])


def test_a_merged_encoder_is_saved_and_loaded_like_any_other(family_checkpoint, batch, tmp_path):
    encoder = family_checkpoint.encoder
    names, kinds = set(encoder.state_dict()), {type(module) for module in encoder.modules()}
    add_adapters(encoder, RANK, generator())
    give_random_values(encoder)
    merge_adapters(encoder)

    save_checkpoint(family_checkpoint, tmp_path / "model", "# card\n")
    loaded = load_checkpoint(tmp_path / "model").encoder

    assert set(encoder.state_dict()) == set(loaded.state_dict()) == names
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert {type(module) for module in encoder.modules()} == kinds
    assert not any(parametrize.is_parametrized(module) for module in encoder.modules())
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(outputs_of(loaded, batch), outputs_of(encoder, batch))
