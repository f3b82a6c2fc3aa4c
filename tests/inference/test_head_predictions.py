import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.inference.embedding import Embedder
from protembed.model.encoder import initialise
from protembed.model.heads import TaskHead
from protembed.model.metadata import ModelMetadata

WINDOW = 60
PARITY = {"rtol": 1e-5, "atol": 1e-5}
NAMES = ("a", "b", "c")


@pytest.fixture
def family_encoder(tiny_encoder):
    """Make embedders with ESM-2 alone: the heads of these tests are scaled for its vectors."""
    return tiny_encoder


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def task_head(task, num_inputs=32, **kind):
    head = TaskHead(num_inputs, TASKS[task], None if TASKS[task].label_kind == "value" else NAMES, **kind)
    initialise(head, "gaussian", torch.Generator().manual_seed(1))
    with torch.no_grad():
        for weight in (parameter for parameter in head.parameters() if parameter.ndim == 2):
            weight.mul_(20)
    head.offset.fill_(50.0)
    head.scale.fill_(20.0)
    return head


@torch.no_grad()
def said_by(head, vectors):
    return head.predict(torch.from_numpy(vectors)).numpy()


@pytest.mark.parametrize("kind", [{}, {"num_hidden": 5}], ids=["linear", "mlp"])
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_a_protein_is_predicted_from_its_pooled_vector(represent, compute, long_and_short, task, window_residues, kind):
    head, representation = task_head(task, **kind), represent((1,), ("max",), window_residues)

    predictions = np.stack(compute(representation.predictions(head), long_and_short))

    vectors = np.stack([embedding.values for embedding in compute(representation.proteins(), long_and_short)])
    assert predictions.shape == ((3,) if task == "regression" else (3, 3))
    np.testing.assert_allclose(predictions, said_by(head, vectors), **PARITY)
    assert np.ptp(predictions, axis=0).max() > 1e-3


@pytest.mark.parametrize("task", ["residue-classification", "residue-regression"])
@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_each_residue_is_predicted_from_its_vector(represent, compute, long_and_short, task, window_residues):
    head, representation = task_head(task), represent((1,), ("max",), window_residues)

    predictions = compute(representation.predictions(head), long_and_short)

    embeddings = compute(representation.residues(), long_and_short)
    for prediction, embedding, sequence in zip(predictions, embeddings, long_and_short, strict=True):
        assert prediction.shape == ((len(sequence),) if task == "residue-regression" else (len(sequence), 3))
        assert prediction.dtype == np.float32
        np.testing.assert_allclose(prediction, said_by(head, embedding.values), **PARITY)
        assert prediction.std(axis=0).min() > 1e-3


def test_predictions_for_residues_in_windows_differ_from_those_in_the_whole_protein(represent, compute, long_and_short):
    head = task_head("residue-regression")

    whole, windowed = (
        compute(represent((2,), window_residues=window).predictions(head), long_and_short) for window in (None, WINDOW)
    )

    assert not np.allclose(whole[0], windowed[0], **PARITY)
    np.testing.assert_array_equal(whole[1], windowed[1])


def test_a_head_on_several_poolings_sees_them_concatenated(represent, compute, long_and_short):
    head, representation = task_head("regression", 64), represent((2,), ("std", "mean"), WINDOW)

    predictions = np.stack(compute(representation.predictions(head), long_and_short))

    vectors = np.stack([embedding.values for embedding in compute(representation.proteins(), long_and_short)])
    assert vectors.shape == (3, 64)
    np.testing.assert_allclose(predictions, said_by(head, vectors), **PARITY)


# Attention


@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_pooling_by_attention_weights_residues_by_the_learned_query(
    represent, compute, long_and_short, window_residues
):
    query = random(32, seed=3)
    attending, plain = (represent((2,), (name,), window_residues, query) for name in ("attention", "mean"))

    vectors = compute(attending.proteins(), long_and_short)

    for vector, of_residues in zip(vectors, compute(plain.residues(), long_and_short), strict=True):
        scores = np.exp(of_residues.values @ query.numpy() / np.sqrt(32))
        expected = (scores / scores.sum()) @ of_residues.values
        np.testing.assert_allclose(vector.values, expected, **PARITY)
        assert not np.allclose(expected, of_residues.values.mean(0), atol=1e-2)


@pytest.mark.parametrize("window_residues", [None, WINDOW])
def test_pooling_with_a_query_of_zeros_is_the_mean(represent, compute, long_and_short, window_residues):
    attending, plain = (represent((2,), (name,), window_residues, torch.zeros(32)) for name in ("attention", "mean"))

    for embedding, mean in zip(
        compute(attending.proteins(), long_and_short), compute(plain.proteins(), long_and_short), strict=True
    ):
        np.testing.assert_allclose(embedding.values, mean.values, **PARITY)


@pytest.mark.parametrize("window_residues", [1022, WINDOW])
def test_a_finetuned_model_embeds_into_the_vector_that_its_head_sees(
    tiny_checkpoint, compute, long_and_short, window_residues
):
    head = task_head("multilabel", query_dim=32)
    with torch.no_grad():
        head.query.copy_(random(32, seed=3))
    tiny_checkpoint.task_head = head
    tiny_checkpoint.metadata = ModelMetadata(window_residues=window_residues, pooling="attention", layer=1)
    representation = Embedder.from_checkpoint(tiny_checkpoint)

    predictions = compute(representation.predictions(head), long_and_short)

    vectors = np.stack([embedding.values for embedding in compute(representation.proteins(), long_and_short)])
    np.testing.assert_allclose(np.stack(predictions), said_by(head, vectors), **PARITY)
