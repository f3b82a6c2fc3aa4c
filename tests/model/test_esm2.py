import pytest
import torch
import torch.nn.functional as F

from protembed.data.alphabet import EOS, MASK, encode
from protembed.data.batching import concatenate
from protembed.model.checkpoint import load_checkpoint

PARITY = {"rtol": 1e-5, "atol": 1e-5}


def with_some_hidden(batch):
    tokens = batch.tokens.clone()
    positions = torch.arange(1, len(tokens), 6)
    tokens[positions[(tokens[positions] >= 4) & (tokens[positions] < 24)]] = MASK
    return tokens


# Attention


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
