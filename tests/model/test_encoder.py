"""What the encoders of all architectures have in common."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from protembed.config.model_sizes import LAYER_NORM_EPS, ESM2Shape
from protembed.data.alphabet import MASK
from protembed.errors import ConfigError
from protembed.model.checkpoint import new_checkpoint
from protembed.model.encoder import attend, attend_packed, inverse_frequencies

PARITY = {"rtol": 1e-5, "atol": 1e-5}


def with_some_hidden(batch):
    tokens = batch.tokens.clone()
    positions = torch.arange(1, len(tokens), 6)
    tokens[positions[(tokens[positions] >= 4) & (tokens[positions] < 24)]] = MASK
    return tokens


# Initialisation


@pytest.mark.parametrize("how", ["gaussian", "uniform"])
def test_initial_parameters_have_the_documented_distributions(how):
    checkpoint = new_checkpoint(ESM2Shape(num_layers=2, dim=64, num_heads=4), how, seed=0)
    norms = [part for model in (checkpoint.encoder, checkpoint.lm_head) for part in model.modules()]
    norms = {id(part.weight) for part in norms if isinstance(part, nn.LayerNorm)}

    num_matrices = 0
    for name, value in [*checkpoint.encoder.named_parameters(), *checkpoint.lm_head.named_parameters()]:
        if id(value) in norms:
            assert (value == 1).all(), name
        elif name.endswith("bias"):
            assert name == "bias" or (value == 0).all(), name
        else:
            num_matrices += 1
            assert value.mean().item() == pytest.approx(0, abs=0.002), name
            assert value.std().item() == pytest.approx(0.02, rel=0.1), name
            # A uniform distribution of this standard deviation ends at its root of three.
            assert (value.abs().max() <= 0.02 * math.sqrt(3)) == (how == "uniform"), name
    assert num_matrices == 1 + 2 * 4 + 1


def test_the_initial_model_is_a_function_of_the_seed():
    shape = ESM2Shape(num_layers=1, dim=16, num_heads=2)
    first, again, other = (new_checkpoint(shape, "gaussian", seed).encoder for seed in (0, 0, 1))

    assert all(torch.equal(*pair) for pair in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


# Attention


def test_attention_is_the_scaled_dot_product_with_softmax_in_each_head():
    query, key, value = torch.randn(3, 7, 2, 8, generator=torch.Generator().manual_seed(0))

    mixed = attend(query, key, value)

    for head in range(2):
        weights = F.softmax(query[:, head] @ key[:, head].T / math.sqrt(8), dim=-1)
        assert torch.allclose(mixed[:, head], weights @ value[:, head], atol=1e-6)


def test_products_of_rotated_queries_and_keys_depend_on_their_distance_alone(family_encoder):
    packed = family_encoder.layout(torch.tensor([0, 12]))
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    vectors = torch.stack([query, key]).expand(12, 2, 8)[:, :, None]

    rotated = packed.rotate(vectors)[:, :, 0]

    scores = rotated[:, 0] @ rotated[:, 1].T
    assert torch.allclose(scores[3, 5], scores[7, 9], atol=1e-6)
    assert not torch.allclose(scores[3, 5], scores[3, 6], atol=1e-3)
    assert not torch.allclose(scores[3, 5], scores[5, 3], atol=1e-3)
    assert torch.equal(rotated[0], vectors[0, :, 0])


def test_positions_restart_at_zero_in_each_protein(family_encoder):
    packed = family_encoder.layout(torch.tensor([0, 5, 8]))

    assert torch.equal(packed.cosine[5:], packed.cosine[:3])
    assert torch.equal(packed.sine[5:], packed.sine[:3])
    assert packed.lengths == [5, 3]
    assert packed.per_token(torch.tensor([1, 2])).tolist() == [1] * 5 + [2] * 3


def test_rotary_frequencies_fall_from_one_by_powers_of_ten_thousand():
    frequencies = inverse_frequencies(ESM2Shape(num_layers=1, dim=32, num_heads=4))

    assert torch.allclose(frequencies, torch.tensor([1.0, 0.1, 0.01, 0.001]))


def test_attention_is_computed_in_float32_in_bfloat16_training_on_cpus(tiny_encoder):
    layout = tiny_encoder.layout(torch.tensor([0, 5, 12]))
    query, key, value = torch.randn(3, 12, 4, 8, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))

    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend_packed(query, key, value, layout)

    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, attend_packed(query.float(), key.float(), value.float(), layout))


@pytest.mark.promise(10)
def test_packed_proteins_do_not_attend_to_each_other(family_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:4])
    together = family_encoder(with_some_hidden(batch), family_encoder.layout(batch.offsets))
    parts = with_some_hidden(batch).split(batch.offsets.diff().tolist())

    for part, packed in zip(parts, together.split(batch.offsets.diff().tolist()), strict=True):
        alone = family_encoder(part, family_encoder.layout(torch.tensor([0, len(part)])))
        assert torch.allclose(alone, packed, atol=1e-6)


# Layers


def test_only_the_last_hidden_state_has_passed_the_final_layer_norm(family_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:2])
    packed = family_encoder.layout(batch.offsets)

    embedded, first, last = family_encoder.hidden_states(batch.tokens, packed)

    assert torch.equal(first, family_encoder.layers[0](embedded, packed))
    assert torch.equal(last, family_encoder.final_norm(family_encoder.layers[1](first, packed)))
    assert not torch.allclose(first, family_encoder.final_norm(first), atol=0.1)


def test_any_layer_can_be_requested(family_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:2])
    packed = family_encoder.layout(batch.offsets)

    for layer, hidden in enumerate(family_encoder.hidden_states(batch.tokens, packed)):
        assert torch.equal(family_encoder(batch.tokens, packed, layer), hidden)
    assert torch.equal(family_encoder(batch.tokens, packed), hidden)


@pytest.mark.parametrize("layer", [-1, 3, 99])
def test_a_layer_that_does_not_exist_is_an_error_with_those_that_do(family_encoder, whole_batch, proteins, layer):
    batch = whole_batch(proteins)

    with pytest.raises(ConfigError, match=rf"layer is {layer}, but 0 \(the embedding\) to 2 \(the last layer\)"):
        family_encoder(batch.tokens, family_encoder.layout(batch.offsets), layer)


def test_tokens_with_padding_are_an_error_that_asks_for_none(family_encoder):
    layout = family_encoder.layout(torch.tensor([0, 5, 12]))

    for shape in [(2, 7), (14,), (5,)]:
        with pytest.raises(ConfigError, match="the 12 tokens of the layout are expected one after the other, without"):
            family_encoder(torch.zeros(shape, dtype=torch.int64), layout)


def test_every_layer_norm_has_the_same_epsilon(family_checkpoint):
    parts = [*family_checkpoint.encoder.modules(), *family_checkpoint.lm_head.modules()]

    assert {part.eps for part in parts if isinstance(part, nn.LayerNorm)} == {LAYER_NORM_EPS} == {1e-5}


# Precision


def states_in(encoder, dtype, batch):
    encoder.set_compute_dtype(dtype)
    with torch.inference_mode():
        return list(encoder.hidden_states(batch.tokens, encoder.layout(batch.offsets)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 4e-2), (torch.float16, 8e-3)])
def test_half_precision_stays_near_float32_and_keeps_the_residual_stream_in_it(
    family_encoder, whole_batch, proteins, dtype, tolerance
):
    batch = whole_batch(proteins[:4])
    expected = states_in(family_encoder, torch.float32, batch)

    states = states_in(family_encoder, dtype, batch)

    assert {tensor.dtype for tensor in states} == {torch.float32}
    assert {layer.feed_forward.up.weight.dtype for layer in family_encoder.layers} == {dtype}
    assert family_encoder.embedding.weight.dtype == family_encoder.final_norm.weight.dtype == torch.float32
    torch.testing.assert_close(states[-1], expected[-1], rtol=0, atol=tolerance)
    assert not torch.equal(states[-1], expected[-1])


# A LayerNorm after the embedding, as in ESM-1b, would take away what the test adds.
@pytest.mark.parametrize("family_shape", ["ESM-2", "ESM-C"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_residual_stream_is_not_rounded_to_half_precision(family_shape, whole_batch, proteins, dtype):
    batch, encoder = whole_batch(proteins[:2]), new_checkpoint(family_shape, "gaussian", seed=0).encoder
    with torch.no_grad():
        encoder.embedding.weight.add_(300)

    embedded, first, _ = states_in(encoder, dtype, batch)

    # Between 256 and 512 neighbouring numbers of half precision are a quarter apart, of bfloat16 two.
    added = (first - embedded).abs()
    assert 0 < added.max() < 0.1
    assert not torch.equal(first, first.to(dtype).float())


def test_outputs_of_layers_are_the_same_with_and_without_gradients(family_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:3])
    packed = family_encoder.layout(batch.offsets)
    expected = list(family_encoder.hidden_states(batch.tokens, packed))

    with torch.inference_mode():
        states = list(family_encoder.hidden_states(batch.tokens, packed))

    for computed, reference in zip(states, expected, strict=True):
        torch.testing.assert_close(computed, reference.detach(), **PARITY)


@pytest.mark.parametrize("has_gradients", [True, False])
@pytest.mark.parametrize("indices", [[0], [3, 4, 30], list(range(0, 200, 3))])
def test_selected_tokens_have_the_states_that_they_have_among_all(
    family_encoder, whole_batch, proteins, indices, has_gradients
):
    batch = whole_batch(proteins[:3])
    tokens, indices = with_some_hidden(batch), torch.tensor(indices)
    assert indices.max() < len(tokens)

    with torch.set_grad_enabled(has_gradients):
        layout = family_encoder.layout(batch.offsets)
        *_, expected = family_encoder.hidden_states(tokens, layout)
        *_, states = family_encoder.hidden_states(tokens, layout, layout.select(indices))

    assert states.shape == (len(indices), family_encoder.shape.dim)
    torch.testing.assert_close(states, expected[indices], rtol=1e-5, atol=1e-6)


def test_selected_tokens_do_not_depend_on_other_proteins_in_the_batch(family_encoder, whole_batch, proteins):
    batch, alone = whole_batch(proteins[:3]), whole_batch(proteins[:1])
    indices = torch.tensor([2, 7, 9])

    with torch.no_grad():
        states, expected = (
            family_encoder(some.tokens, layout, selected=layout.select(torch.cat([indices, others])))
            for some, others in ((batch, batch.offsets[1:2] + 5), (alone, indices[:0]))
            for layout in [family_encoder.layout(some.offsets)]
        )

    assert torch.equal(states[:3], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_leaves_its_argument_unchanged_and_keeps_the_dtype(family_encoder, dtype):
    packed = family_encoder.layout(torch.tensor([0, 5, 8]))
    vectors = torch.randn(8, 2, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = vectors.clone()

    rotated = packed.rotate(vectors)

    first, second = before.float().chunk(2, dim=-1)
    cosine, sine = packed.cosine[..., :4], packed.sine
    expected = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    assert torch.equal(vectors, before)
    assert rotated.dtype == dtype
    torch.testing.assert_close(rotated, expected.to(dtype))
