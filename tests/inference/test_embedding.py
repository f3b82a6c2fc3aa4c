from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.windows import window_spans
from protembed.errors import ConfigError
from protembed.inference.embedding import Embedder
from protembed.model.heads import TaskHead
from protembed.model.metadata import ModelMetadata

WINDOW = 60
PARITY = {"rtol": 1e-5, "atol": 1e-5}


@torch.no_grad()
def hidden_of(encoder, tokens, layer):
    """Compute the vectors of the tokens of one protein or window, (tokens, dim)."""
    layout = encoder.layout(torch.tensor([0, len(tokens)]))
    return list(encoder.hidden_states(torch.tensor(tokens), layout))[layer].numpy()


def by_hand(encoder, sequence, layer, window_residues=None):
    """Compute the vector of `<cls>`, (dim,), and those of the residues, (residues, dim), one window at a time."""
    residues = encode(sequence).tolist()
    tokens, last = [CLS, *residues, EOS], len(residues)
    if window_residues is None or last <= window_residues:
        hidden = hidden_of(encoder, tokens, layer)
        return hidden[0], hidden[1:-1]
    cls = hidden_of(encoder, tokens[: window_residues + 1], layer)[0]
    sums, weights = np.zeros((last, encoder.shape.dim)), np.zeros((last, 1))
    for start, stop in window_spans(last, window_residues):
        # Residue 0 is token 1; the first window begins with <cls>, the last one ends with <eos>.
        first_token, end = (0 if start == 0 else start + 1), (last + 2 if stop == last else stop + 1)
        hidden = hidden_of(encoder, tokens[first_token:end], layer)
        for residue in range(start, stop):
            from_the_left = residue - start + 1 if start > 0 else window_residues
            from_the_right = stop - residue if stop < last else window_residues
            weight = min(from_the_left, from_the_right)
            sums[residue] += weight * hidden[residue + 1 - first_token]
            weights[residue] += weight
    return cls, (sums / weights).astype(np.float32)


POOLED = {
    "mean": lambda cls, residues: residues.sum(0) / len(residues),
    "max": lambda cls, residues: residues.max(0),
    "std": lambda cls, residues: ((residues - residues.mean(0)) ** 2).mean(0) ** 0.5,
    "cls": lambda cls, residues: cls,
}


# Whole proteins


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_protein_is_the_pooled_vectors_of_its_residues(represent, family_encoder, compute, three, layer, pooling):
    embeddings = compute(represent((layer,), (pooling,)).proteins(), three)

    for embedding, sequence in zip(embeddings, three, strict=True):
        expected = POOLED[pooling](*by_hand(family_encoder, sequence, layer))
        assert (embedding.values.shape, embedding.values.dtype) == ((32,), np.float32)
        assert (embedding.num_windows, embedding.overlap_cosine) == (1, None)
        np.testing.assert_allclose(embedding.values, expected, **PARITY)


def test_vectors_of_residues_exclude_cls_and_eos(represent, family_encoder, compute, three):
    embeddings = compute(represent().residues(), three)

    for embedding, sequence in zip(embeddings, three, strict=True):
        assert (embedding.values.shape, embedding.values.dtype) == ((len(sequence), 32), np.float32)
        np.testing.assert_allclose(embedding.values, by_hand(family_encoder, sequence, 2)[1], **PARITY)


@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_the_mean_of_a_proteins_residues_is_its_vector(represent, compute, long_and_short, window_residues):
    representation = represent(window_residues=window_residues)
    vectors, residues = (compute(job, long_and_short) for job in (representation.proteins(), representation.residues()))

    for vector, per_residue in zip(vectors, residues, strict=True):
        np.testing.assert_allclose(vector.values, per_residue.values.mean(0), **PARITY)


# Long proteins


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_residues_of_a_long_protein_are_blended_from_its_windows(
    represent, family_encoder, compute, long_and_short, layer
):
    embeddings = compute(represent((layer,), window_residues=WINDOW).residues(), long_and_short)

    for embedding, sequence in zip(embeddings, long_and_short, strict=True):
        _, expected = by_hand(family_encoder, sequence, layer, WINDOW)
        assert embedding.values.dtype == np.float32
        np.testing.assert_allclose(embedding.values, expected, **PARITY)


@pytest.mark.parametrize("pooling", POOLED)
def test_a_long_protein_is_the_pooled_vectors_of_its_blended_residues(
    represent, family_encoder, compute, long_and_short, pooling
):
    embeddings = compute(represent((2,), (pooling,), WINDOW).proteins(), long_and_short)

    for embedding, sequence in zip(embeddings, long_and_short, strict=True):
        expected = POOLED[pooling](*by_hand(family_encoder, sequence, 2, WINDOW))
        np.testing.assert_allclose(embedding.values, expected, **PARITY)


# Learned positions are those in the window, so that even the embeddings of ESM-1b's windows differ.
@pytest.mark.parametrize("family_shape", ["ESM-2", "ESM-C"], indirect=True)
def test_an_embedding_reports_its_number_of_windows_and_their_agreement(represent, compute, long_and_short):
    embedding_layer, last_layer = (
        compute(represent((layer,), window_residues=WINDOW).proteins(), long_and_short) for layer in (0, 2)
    )

    assert [embedding.num_windows for embedding in last_layer] == [len(window_spans(383, WINDOW)), 1, 1]
    assert [embedding.overlap_cosine is None for embedding in last_layer] == [False, True, True]
    # A residue's embedding knows nothing of its context, so windows agree in it.
    assert embedding_layer[0].overlap_cosine == pytest.approx(1, abs=1e-5)
    assert 0.5 < last_layer[0].overlap_cosine < 0.99999


def test_a_protein_as_long_as_a_window_is_computed_whole(represent, compute, proteins):
    (windowed,), (whole,) = (
        compute(represent(window_residues=window).proteins(), [proteins[0]]) for window in (380, None)
    )

    assert len(proteins[0]) == 380
    assert windowed.num_windows == 1
    np.testing.assert_array_equal(windowed.values, whole.values)


# Several side by side


@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_poolings_and_layers_are_concatenated_as_their_slices_describe(
    represent, family_encoder, compute, long_and_short, window_residues
):
    representation = represent((2, 0), ("std", "mean", "cls", "max"), window_residues)
    slices = representation.slices(per_residue=False)

    embeddings = compute(representation.proteins(), long_and_short)

    assert [(part["pooling"], part["layer"]) for part in slices[:3]] == [("std", 2), ("std", 0), ("mean", 2)]
    assert (slices[0]["start"], slices[-1]["stop"], len(slices)) == (0, 8 * 32, 8)
    for embedding, sequence in zip(embeddings, long_and_short, strict=True):
        assert embedding.values.shape == (8 * 32,)
        for part in slices:
            expected = POOLED[part["pooling"]](*by_hand(family_encoder, sequence, part["layer"], window_residues))
            values = embedding.values[part["start"] : part["stop"]]
            np.testing.assert_allclose(values, expected, **PARITY)


@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_layers_of_residues_are_concatenated_and_their_slices_have_no_pooling(
    represent, family_encoder, compute, long_and_short, window_residues
):
    representation = represent((0, 1), ("mean", "max"), window_residues)

    embeddings = compute(representation.residues(), long_and_short)

    assert representation.slices(per_residue=True) == [
        {"pooling": None, "layer": 0, "start": 0, "stop": 32},
        {"pooling": None, "layer": 1, "start": 32, "stop": 64},
    ]
    for embedding, sequence in zip(embeddings, long_and_short, strict=True):
        expected = [by_hand(family_encoder, sequence, layer, window_residues)[1] for layer in (0, 1)]
        np.testing.assert_allclose(embedding.values, np.concatenate(expected, axis=1), **PARITY)


# Choices


def chosen(checkpoint, metadata=None, **options):
    checkpoint.metadata = replace(ModelMetadata(), **(metadata or {}))
    representation = Embedder.from_checkpoint(checkpoint, **options)
    return representation.layers, representation.poolings


def test_the_last_layer_and_the_mean_are_the_defaults(tiny_checkpoint):
    assert chosen(tiny_checkpoint) == ((2,), ("mean",))


def test_auto_uses_the_layer_and_pooling_of_the_metadata(tiny_checkpoint):
    assert chosen(tiny_checkpoint, {"layer": 0, "pooling": "max"}) == ((0,), ("max",))
    assert chosen(tiny_checkpoint, {"layer": 1}) == ((1,), ("mean",))


def test_a_requested_layer_and_pooling_override_the_metadata(tiny_checkpoint):
    metadata = {"layer": 1, "pooling": "max"}

    assert chosen(tiny_checkpoint, metadata, layer="last", pooling="cls") == ((2,), ("cls",))
    assert chosen(tiny_checkpoint, metadata, layer="0", pooling="std") == ((0,), ("std",))


def test_several_layers_and_poolings_can_be_requested(tiny_checkpoint):
    assert chosen(tiny_checkpoint, layer="2,0", pooling="mean, std") == ((2, 0), ("mean", "std"))
    assert chosen(tiny_checkpoint, layer="all") == ((0, 1, 2), ("mean",))
    assert chosen(tiny_checkpoint, layer="1-2") == ((1, 2), ("mean",))


@pytest.mark.parametrize(("asked", "window"), [(None, 300), (40, 40)])
def test_the_window_is_the_models_unless_another_is_requested(tiny_checkpoint, asked, window):
    tiny_checkpoint.metadata = ModelMetadata(window_residues=300)

    assert Embedder.from_checkpoint(tiny_checkpoint, window_residues=asked).window_residues == window


@pytest.mark.parametrize("layer", ["3", "-1", "first", "", "1.0", "²", "0,3", "1,"])
def test_a_layer_that_the_model_lacks_is_a_usage_error(tiny_checkpoint, layer):
    with pytest.raises(ConfigError, match="layer is .*, but this model has layers 0 to 2") as caught:
        Embedder.from_checkpoint(tiny_checkpoint, layer=layer)

    assert caught.value.exit_status == 2


@pytest.mark.parametrize("pooling", ["median", "", "mean,", "mean,auto", "Mean"])
def test_an_unknown_pooling_is_a_usage_error(tiny_checkpoint, pooling):
    with pytest.raises(
        ConfigError, match="pooling is .*, but one of mean, max, std, cls, attention is expected"
    ) as caught:
        Embedder.from_checkpoint(tiny_checkpoint, pooling=pooling)

    assert caught.value.exit_status == 2


def with_query(checkpoint, **metadata):
    checkpoint.metadata = ModelMetadata(**metadata)
    checkpoint.task_head = TaskHead(32, TASKS["regression"], None, query_dim=32)
    return checkpoint


def test_a_learned_query_is_used_where_the_metadata_record_attention(tiny_checkpoint):
    representation = Embedder.from_checkpoint(with_query(tiny_checkpoint, pooling="attention", layer=1))

    assert (representation.layers, representation.poolings) == ((1,), ("attention",))
    assert representation.query is tiny_checkpoint.task_head.query
    assert Embedder.from_checkpoint(tiny_checkpoint, pooling="mean").query is None


@pytest.mark.parametrize("layer", ["last", "0", "0,1"])
def test_pooling_by_attention_at_another_layer_is_a_usage_error(tiny_checkpoint, layer):
    checkpoint = with_query(tiny_checkpoint, pooling="attention", layer=1)

    with pytest.raises(ConfigError, match="this model has learned none for that layer"):
        Embedder.from_checkpoint(checkpoint, layer=layer)


def test_pooling_by_attention_without_a_learned_query_is_a_usage_error(tiny_checkpoint):
    with pytest.raises(ConfigError, match="pooling is .*, but this model has learned none"):
        Embedder.from_checkpoint(tiny_checkpoint, pooling="mean,attention")


@pytest.mark.parametrize("options", [{"layer": "1,2,1"}, {"pooling": "std,std"}])
def test_naming_a_layer_or_pooling_twice_is_a_usage_error(tiny_checkpoint, options):
    with pytest.raises(ConfigError, match="each can be named once"):
        Embedder.from_checkpoint(tiny_checkpoint, **options)
