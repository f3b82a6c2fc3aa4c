from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.errors import ConfigError
from protembed.inference.engine import Engine
from protembed.inference.representation import Representation, representation_of
from protembed.model.heads import TaskHead
from protembed.model.record import ModelRecord


@pytest.fixture
def batch(whole_batch, proteins):
    return whole_batch(proteins[2:5])


@torch.no_grad()
def hidden_by_hand(encoder, batch, layer):
    """The residues' vectors of each protein, computed one protein at a time."""
    for start, stop in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        pack = encoder.pack(torch.tensor([0, stop - start]))
        yield list(encoder.hidden_states(batch.tokens[start:stop], pack))[layer].numpy()


POOLED = {
    "mean": lambda hidden: hidden[1:-1].sum(0) / (len(hidden) - 2),
    "max": lambda hidden: hidden[1:-1].max(0),
    "std": lambda hidden: ((hidden[1:-1] - hidden[1:-1].mean(0)) ** 2).mean(0) ** 0.5,
    "cls": lambda hidden: hidden[0],
}


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("layer", [0, 1, 2])
@torch.no_grad()
def test_a_protein_is_the_pooled_vectors_of_its_residues(tiny_encoder, batch, layer, pooling):
    vectors = Representation(encoder=tiny_encoder, layer=layer, pooling=pooling).proteins(batch)

    by_hand = [POOLED[pooling](hidden) for hidden in hidden_by_hand(tiny_encoder, batch, layer)]
    assert (vectors.shape, vectors.dtype) == ((3, 32), np.float32)
    assert np.allclose(vectors, by_hand, atol=1e-5)


@torch.no_grad()
def test_residues_leave_cls_and_eos_out(tiny_encoder, batch, proteins):
    residues = Representation(encoder=tiny_encoder, layer=2, pooling="mean").residues(batch)

    assert [len(vectors) for vectors in residues] == [len(protein) for protein in proteins[2:5]]
    for vectors, hidden in zip(residues, hidden_by_hand(tiny_encoder, batch, 2), strict=True):
        assert np.allclose(vectors, hidden[1:-1], atol=1e-5)


@pytest.mark.parametrize("classes", [None, ("a", "b", "c")])
@torch.no_grad()
def test_predictions_are_what_the_head_says_of_the_pooled_vectors(tiny_encoder, batch, classes):
    head = TaskHead(32, classes)
    representation = Representation(encoder=tiny_encoder, layer=1, pooling="max")

    predictions = representation.predictions(batch, head)

    assert predictions.shape == ((3, 3) if classes else (3,))
    assert np.allclose(predictions, head.predict(torch.from_numpy(representation.proteins(batch))).numpy(), atol=1e-6)


def test_the_engine_computes_every_kind_of_representation(tiny_encoder, proteins_fasta, pool, proteins):
    class Protein:
        sequence = proteins[2]

    representation = Representation(encoder=tiny_encoder, layer=2, pooling="mean")
    ((_, vector),) = Engine(pool=pool).run(representation.proteins, [Protein()])
    ((_, residues),) = Engine(pool=pool).run(representation.residues, [Protein()])

    assert np.allclose(vector, residues.mean(0), atol=1e-6)


# Choices


def chosen(checkpoint, record=None, **options):
    checkpoint.record = replace(ModelRecord(), **(record or {}))
    representation = representation_of(checkpoint, **options)
    return representation.layer, representation.pooling


def test_the_last_layer_and_the_mean_are_the_defaults(tiny_checkpoint):
    assert chosen(tiny_checkpoint) == (2, "mean")


def test_auto_is_what_the_model_records(tiny_checkpoint):
    assert chosen(tiny_checkpoint, {"layer": 0, "pooling": "max"}) == (0, "max")
    assert chosen(tiny_checkpoint, {"layer": 1}) == (1, "mean")


def test_what_was_asked_for_wins_over_the_record(tiny_checkpoint):
    record = {"layer": 1, "pooling": "max"}

    assert chosen(tiny_checkpoint, record, layer="last", pooling="cls") == (2, "cls")
    assert chosen(tiny_checkpoint, record, layer="0", pooling="std") == (0, "std")


@pytest.mark.parametrize("layer", ["3", "-1", "first", "", "1.0", "²"])
def test_a_layer_that_the_model_has_not_is_a_usage_error(tiny_checkpoint, layer):
    with pytest.raises(ConfigError, match="--layer is .*, but this model has layers 0 to 2") as caught:
        representation_of(tiny_checkpoint, layer=layer)

    assert caught.value.exit_status == 2
