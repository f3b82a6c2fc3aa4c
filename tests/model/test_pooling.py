import math

import pytest
import torch

from protembed.model.pooling import attention_pooling, pool_protein, residues_of

HIDDEN = torch.tensor([[9e9, 9e9], [1.0, 10], [2, 30], [6, 20], [-9e9, -9e9], [7e9, 7e9], [3, 4], [-7e9, -7e9]])
OFFSETS = torch.tensor([0, 5, 8])
QUERY = torch.tensor([0.5, -0.1])


def pool(hidden, layout, poolings, query=None):
    """Pool the tokens of each whole protein, (proteins, poolings · dim)."""
    proteins = (protein for (protein,) in layout.split(hidden))
    return torch.stack([pool_protein(protein[0], residues_of(protein), poolings, query) for protein in proteins])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [[3, 20], [3, 4]]),
        ("max", [[6, 30], [3, 4]]),
        ("std", [[(14 / 3) ** 0.5, (200 / 3) ** 0.5], [0, 0]]),
        ("cls", [[9e9, 9e9], [7e9, 7e9]]),
    ],
)
def test_pooling_is_over_residues_never_over_cls_and_eos(tiny_encoder, pooling, expected):
    pooled = pool(HIDDEN, tiny_encoder.layout(OFFSETS), [pooling])

    assert torch.allclose(pooled, torch.tensor(expected, dtype=torch.float32))


def test_pooling_by_attention_weights_residues_by_their_product_with_the_query(tiny_encoder):
    # Products with the residues (1, 10), (2, 30) and (6, 20), divided by the root of two dimensions.
    weights = [math.exp((0.5 * first - 0.1 * second) / math.sqrt(2)) for first, second in ((1, 10), (2, 30), (6, 20))]
    expected = [
        sum(weight * value for weight, value in zip(weights, column, strict=True)) / sum(weights)
        for column in ((1, 2, 6), (10, 30, 20))
    ]

    pooled = pool(HIDDEN, tiny_encoder.layout(OFFSETS), ["attention"], QUERY)

    assert torch.allclose(pooled, torch.tensor([expected, [3.0, 4.0]]))


def test_pooling_with_a_query_of_zeros_is_the_mean(tiny_encoder):
    layout = tiny_encoder.layout(OFFSETS)

    assert torch.allclose(pool(HIDDEN, layout, ["attention"], torch.zeros(2)), pool(HIDDEN, layout, ["mean"]))


def test_a_strong_query_selects_a_single_residue():
    assert attention_pooling(HIDDEN[1:4], torch.tensor([0.0, 1000.0])).tolist() == [2, 30]


def test_several_poolings_are_concatenated_in_their_order(tiny_encoder):
    layout = tiny_encoder.layout(OFFSETS)

    both = pool(HIDDEN, layout, ["max", "cls"])

    assert torch.equal(both, torch.cat([pool(HIDDEN, layout, ["max"]), pool(HIDDEN, layout, ["cls"])], dim=1))


def test_residues_are_all_tokens_but_the_first_and_the_last():
    assert residues_of(HIDDEN[:5]).tolist() == HIDDEN[1:4].tolist()


@pytest.mark.promise(10)
def test_pooled_vectors_do_not_depend_on_other_sequences_in_the_batch(tiny_encoder, whole_batch, proteins):
    def pooled(sequences):
        batch = whole_batch(sequences)
        packed = tiny_encoder.layout(batch.offsets)
        return pool(tiny_encoder(batch.tokens, packed), packed, ["mean"])

    alone = torch.cat([pooled([protein]) for protein in proteins[:5]])

    assert torch.allclose(pooled(proteins[:5]), alone, atol=1e-6)
