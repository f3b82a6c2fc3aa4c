import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from protembed.config.model_sizes import LAYER_NORM_EPS, ESM2Shape
from protembed.data.alphabet import EOS, MASK, encode
from protembed.data.batching import concatenate
from protembed.errors import ConfigError
from protembed.model.checkpoint import load_checkpoint, new_checkpoint
from protembed.model.encoder import attend, inverse_frequencies

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


def test_multi_head_attention_concatenates_the_heads_and_projects_them(tiny_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:1])
    attention, packed = tiny_encoder.layers[0].attention, tiny_encoder.layout(batch.offsets)
    hidden = torch.randn(batch.num_tokens, 32, generator=torch.Generator().manual_seed(0))
    values = F.linear(hidden, attention.qkv.weight[64:], attention.qkv.bias[64:]).unflatten(1, (4, 8))

    (maps,) = attention.attention_weights(hidden, packed)

    mixed = torch.einsum("hqk,khd->qhd", maps, values)
    assert torch.allclose(
        attention(hidden, packed, torch.zeros_like(hidden)), attention.out(mixed.flatten(1)), atol=1e-6
    )
    assert torch.allclose(maps.sum(-1), torch.ones(4, batch.num_tokens))


def test_products_of_rotated_queries_and_keys_depend_on_their_distance_alone(tiny_encoder):
    packed = tiny_encoder.layout(torch.tensor([0, 12]))
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    vectors = torch.stack([query, key]).expand(12, 2, 8)[:, :, None]

    rotated = packed.rotate(vectors)[:, :, 0]

    scores = rotated[:, 0] @ rotated[:, 1].T
    assert torch.allclose(scores[3, 5], scores[7, 9], atol=1e-6)
    assert not torch.allclose(scores[3, 5], scores[3, 6], atol=1e-3)
    assert not torch.allclose(scores[3, 5], scores[5, 3], atol=1e-3)
    assert torch.equal(rotated[0], vectors[0, :, 0])


def test_positions_restart_at_zero_in_each_protein(tiny_encoder):
    packed = tiny_encoder.layout(torch.tensor([0, 5, 8]))

    assert torch.equal(packed.cosine[5:], packed.cosine[:3])
    assert torch.equal(packed.sine[5:], packed.sine[:3])
    assert packed.lengths == [5, 3]
    assert packed.per_token(torch.tensor([1, 2])).tolist() == [1] * 5 + [2] * 3


def test_rotary_frequencies_fall_from_one_by_powers_of_ten_thousand():
    frequencies = inverse_frequencies(ESM2Shape(num_layers=1, dim=32, num_heads=4))

    assert torch.allclose(frequencies, torch.tensor([1.0, 0.1, 0.01, 0.001]))


@pytest.mark.promise(10)
def test_packed_proteins_do_not_attend_to_each_other(tiny_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:4])
    together = tiny_encoder(with_some_hidden(batch), tiny_encoder.layout(batch.offsets))
    parts = with_some_hidden(batch).split(batch.offsets.diff().tolist())

    for part, packed in zip(parts, together.split(batch.offsets.diff().tolist()), strict=True):
        alone = tiny_encoder(part, tiny_encoder.layout(torch.tensor([0, len(part)])))
        assert torch.allclose(alone, packed, atol=1e-6)


# Token dropout


def test_masks_have_zero_embeddings_and_other_tokens_are_scaled_by_their_fraction(tiny_encoder):
    batch = concatenate([torch.tensor([0, 20, MASK, 11, EOS]).numpy(), torch.tensor([0, 20, EOS]).numpy()], [0, 1])

    embedded = tiny_encoder.embed(batch.tokens, tiny_encoder.layout(batch.offsets))

    vectors = tiny_encoder.embedding.weight[batch.tokens]
    scale = torch.tensor([0.88 / 0.8, 0.88 / 0.8, 0, 0.88 / 0.8, 0.88 / 0.8, 0.88, 0.88, 0.88])
    assert torch.allclose(embedded, vectors * scale[:, None])


def test_a_crop_that_is_all_mask_has_finite_vectors_and_gradients(tiny_encoder):
    hidden = tiny_encoder(torch.full((6,), MASK), tiny_encoder.layout(torch.tensor([0, 6])))
    hidden.sum().backward()

    assert hidden.isfinite().all()
    assert all(value.grad is None or value.grad.isfinite().all() for value in tiny_encoder.parameters())


# Layers


def test_only_the_last_hidden_state_has_passed_the_final_layer_norm(tiny_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:2])
    packed = tiny_encoder.layout(batch.offsets)

    embedded, first, last = tiny_encoder.hidden_states(batch.tokens, packed)

    assert torch.equal(first, tiny_encoder.layers[0](embedded, packed))
    assert torch.equal(last, tiny_encoder.final_norm(tiny_encoder.layers[1](first, packed)))
    assert torch.allclose(last.std(-1, correction=0), torch.ones(len(last)), atol=0.1)


def test_any_layer_can_be_requested(tiny_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:2])
    packed = tiny_encoder.layout(batch.offsets)

    for layer, hidden in enumerate(tiny_encoder.hidden_states(batch.tokens, packed)):
        assert torch.equal(tiny_encoder(batch.tokens, packed, layer), hidden)
    assert torch.equal(tiny_encoder(batch.tokens, packed), hidden)


@pytest.mark.parametrize("layer", [-1, 3, 99])
def test_a_layer_that_does_not_exist_is_an_error_with_those_that_do(tiny_encoder, whole_batch, proteins, layer):
    batch = whole_batch(proteins)

    with pytest.raises(ConfigError, match=rf"layer is {layer}, but 0 \(the embedding\) to 2 \(the last layer\)"):
        tiny_encoder(batch.tokens, tiny_encoder.layout(batch.offsets), layer)


def test_tokens_with_padding_are_an_error_that_asks_for_none(tiny_encoder):
    layout = tiny_encoder.layout(torch.tensor([0, 5, 12]))

    for shape in [(2, 7), (14,), (5,)]:
        with pytest.raises(ConfigError, match="the 12 tokens of the layout are expected one after the other, without"):
            tiny_encoder(torch.zeros(shape, dtype=torch.int64), layout)


def test_every_layer_norm_has_the_epsilon_of_esm2(tiny_checkpoint):
    parts = [*tiny_checkpoint.encoder.modules(), *tiny_checkpoint.lm_head.modules()]

    assert {part.eps for part in parts if isinstance(part, nn.LayerNorm)} == {LAYER_NORM_EPS} == {1e-5}


# Precision


def states_in(encoder, dtype, batch):
    encoder.set_compute_dtype(dtype)
    with torch.inference_mode():
        return list(encoder.hidden_states(batch.tokens, encoder.layout(batch.offsets)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_half_precision_stays_near_float32_and_keeps_the_residual_stream_in_it(
    tiny_encoder, whole_batch, proteins, dtype, tolerance
):
    batch = whole_batch(proteins[:4])
    expected = states_in(tiny_encoder, torch.float32, batch)

    states = states_in(tiny_encoder, dtype, batch)

    assert {tensor.dtype for tensor in states} == {torch.float32}
    assert {layer.feed_forward.up.weight.dtype for layer in tiny_encoder.layers} == {dtype}
    assert tiny_encoder.embedding.weight.dtype == tiny_encoder.final_norm.weight.dtype == torch.float32
    torch.testing.assert_close(states[-1], expected[-1], rtol=0, atol=tolerance)
    assert not torch.equal(states[-1], expected[-1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_residual_stream_is_not_rounded_to_half_precision(tiny_encoder, whole_batch, proteins, dtype):
    batch = whole_batch(proteins[:2])
    with torch.no_grad():
        tiny_encoder.embedding.weight.add_(300)

    embedded, first, _ = states_in(tiny_encoder, dtype, batch)

    # Between 256 and 512 neighbouring numbers of half precision are a quarter apart, of bfloat16 two.
    added = (first - embedded).abs()
    assert 0 < added.max() < 0.1
    assert not torch.equal(first, first.to(dtype).float())


def test_outputs_of_layers_are_the_same_with_and_without_gradients(tiny_encoder, whole_batch, proteins):
    batch = whole_batch(proteins[:3])
    packed = tiny_encoder.layout(batch.offsets)
    expected = list(tiny_encoder.hidden_states(batch.tokens, packed))

    with torch.inference_mode():
        states = list(tiny_encoder.hidden_states(batch.tokens, packed))

    for computed, reference in zip(states, expected, strict=True):
        torch.testing.assert_close(computed, reference.detach(), **PARITY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_leaves_its_argument_unchanged_and_keeps_the_dtype(tiny_encoder, dtype):
    packed = tiny_encoder.layout(torch.tensor([0, 5, 8]))
    vectors = torch.randn(8, 2, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = vectors.clone()

    rotated = packed.rotate(vectors)

    first, second = before.float().chunk(2, dim=-1)
    cosine, sine = packed.cosine[..., :4], packed.sine
    expected = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    assert torch.equal(vectors, before)
    assert rotated.dtype == dtype
    torch.testing.assert_close(rotated, expected.to(dtype))


# Parity with transformers


@pytest.mark.promise(11)
@torch.no_grad()
def test_hidden_states_of_every_layer_equal_those_of_transformers(esm2, whole_batch, proteins):
    model, directory = esm2
    encoder = load_checkpoint(directory).encoder
    batch = whole_batch(sorted(proteins, key=len)[::13])
    tokens = with_some_hidden(batch)
    assert (tokens == MASK).sum() > 50

    computed = list(encoder.hidden_states(tokens, encoder.layout(batch.offsets)))

    for start, stop in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        expected = model(tokens[None, start:stop], output_hidden_states=True).hidden_states
        assert len(expected) == len(computed)
        for layer, hidden in enumerate(expected):
            # Of the largest value: a small one is a sum of large ones, and once in 184,800 was 1.03e-5 off.
            scale = max(1.0, hidden.abs().max().item())
            torch.testing.assert_close(computed[layer][start:stop], hidden[0], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.promise(11)
@torch.no_grad()
def test_attention_maps_equal_those_of_transformers(esm2, whole_batch, proteins):
    model, directory = esm2
    encoder = load_checkpoint(directory).encoder
    batch = whole_batch(sorted(proteins, key=len)[:20:9])
    tokens = with_some_hidden(batch)

    computed = list(encoder.attention_maps(tokens, encoder.layout(batch.offsets)))

    assert len(computed) == encoder.shape.num_layers
    for row, (start, stop) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
        expected = model(tokens[None, start:stop], output_attentions=True).attentions
        for layer, maps in enumerate(expected):
            torch.testing.assert_close(computed[layer][row], maps[0], **PARITY)


@pytest.mark.promise(11)
@torch.no_grad()
def test_windows_without_special_tokens_equal_those_of_transformers(esm2, proteins):
    model, directory = esm2
    encoder = load_checkpoint(directory).encoder
    window = torch.from_numpy(encode(proteins[0])[10:60]).long()

    computed = encoder(window, encoder.layout(torch.tensor([0, 50])))

    torch.testing.assert_close(computed, model.esm(window[None]).last_hidden_state[0], **PARITY)
