from functools import partial

import pytest
import torch

import grow_heads
from protembed.config.model_sizes import ESM2Shape
from protembed.model.checkpoint import new_checkpoint


@pytest.fixture
def model():
    """A model of four heads of eight coordinates."""
    return new_checkpoint(ESM2Shape(num_layers=2, dim=32, num_heads=4), "gaussian", seed=0)


def test_a_wide_head_sums_the_logits_of_the_heads_that_it_joins(model):
    # A protein of one residue: at position 0 rotary positions change nothing.
    grown = grow_heads.join_heads(model, 2)
    states = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    logits = []
    for checkpoint in (model, grown):
        layout = checkpoint.encoder.layout(torch.tensor([0, 1]))
        query, key, _ = checkpoint.encoder.layers[1].attention.project(states, layout)
        logits.append((query * key).sum(-1) / query.shape[-1] ** 0.5)  # (1, heads)

    torch.testing.assert_close(logits[1], logits[0].view(1, 2, 2).sum(-1))
    assert grown.encoder.shape == ESM2Shape(num_layers=2, dim=32, num_heads=2)


def test_each_pair_of_a_narrow_head_stays_a_pair_of_two_halves(model):
    rows = grow_heads.rows_of_joined_heads(num_heads=4, head_dim=8, joined=2).view(2, 2, 8)  # head, half, pair

    assert torch.equal(rows[:, 1], rows[:, 0] + 4)
    assert rows.flatten().sort().values.tolist() == list(range(32))


def test_fitting_brings_attention_closer_to_that_of_the_model(model, corpus, pool, monkeypatch):
    monkeypatch.setattr(grow_heads, "WARMUP_STEPS", 1)
    batches = grow_heads.PretrainingBatches(corpus, grow_heads.BATCHES, 4096, grow_heads.MASKING, seed=0)
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.attention.qkv.weight.mul_(10)
    grown = grow_heads.join_heads(model, 2)
    (batch, *_) = batches.micro_batches(0)
    attention = [weight for layer in grown.encoder.layers for weight in layer.attention.parameters()]
    compute = partial(grow_heads.compute_gradients, model.encoder, grown.encoder, attention)
    _, before = compute(batch)

    grow_heads.fit_attention(model.encoder, grown.encoder, batches, minutes=0.02, pool=pool)

    assert (compute(batch)[1] < 0.9 * before).all()
