import math

import numpy as np
import pytest
import torch

from protembed.attention.contacts import ResiduePairs, gather, head_features
from protembed.attention.head_statistics import ALL_STATISTICS, STATISTICS, head_statistics
from protembed.attention.maps import (
    AttentionExtractor,
    MapRequest,
    attention_rollout_step,
    parse_region,
)
from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import ConfigError
from protembed.inference.computation import run_to_end
from protembed.model.heads import ContactHead

# Four residues between <cls> and <eos>.
UNIFORM = torch.full((6, 6), 1 / 6)
ON_ITSELF = torch.eye(6)
ON_THE_NEXT = torch.eye(6).roll(1, dims=1)
ON_CLS = torch.eye(6)[torch.zeros(6, dtype=int)]


def means(weights):
    sums = head_statistics(weights[None])[:, 0]
    return dict(zip(STATISTICS, (sums / (len(weights) - 2)).tolist(), strict=True))


# Statistics of heads


def test_entropy_of_uniform_attention_is_the_logarithm_of_the_length():
    uniform = means(UNIFORM)

    assert uniform["entropy"] == pytest.approx(math.log(6))
    assert uniform["on_self"] == uniform["on_cls"] == uniform["on_eos"] == pytest.approx(1 / 6)
    # Two of the four residues have a single neighbour.
    assert uniform["on_neighbours"] == pytest.approx((2 + 1) / 2 / 6)
    # The mean distance from residue 0 or 3 to residues 0 to 3 is 6 / 4, from residue 1 or 2 it is 4 / 4.
    assert uniform["mean_distance"] == pytest.approx((6 / 4 + 4 / 4) / 2)


def test_head_on_itself_has_all_attention_on_self():
    assert means(ON_ITSELF) == {name: float(name == "on_self") for name in STATISTICS}


def test_head_on_the_next_token_has_attention_on_neighbours_and_eos():
    # The last residue's next token is <eos>.
    expected = dict.fromkeys(STATISTICS, 0.0) | {"mean_distance": 0.75, "on_neighbours": 0.75, "on_eos": 0.25}

    assert means(ON_THE_NEXT) == pytest.approx(expected)


def test_head_on_cls_has_all_attention_on_cls():
    assert means(ON_CLS) == {name: float(name == "on_cls") for name in STATISTICS}


def test_attention_of_special_tokens_does_not_count():
    weights = UNIFORM.clone()
    weights[0], weights[-1] = ON_ITSELF[0], ON_ITSELF[-1]

    assert means(weights) == means(UNIFORM)


def test_statistics_of_heads_are_independent():
    together = head_statistics(torch.stack([UNIFORM, ON_ITSELF]))

    assert together.shape == (len(STATISTICS), 2)
    assert torch.equal(together[:, 1], head_statistics(ON_ITSELF[None])[:, 0])


# Maps


@pytest.fixture
def batch(whole_batch, proteins):
    return whole_batch([proteins[12], proteins[3]])


def extract(encoder, batch, *, layers=(0, 1), heads=(0, 1, 2, 3), holds_maps=(True, True), requests=None, **options):
    extractor = AttentionExtractor(encoder=encoder, layers=layers, heads=heads, **options)
    with torch.inference_mode():
        return run_to_end(extractor.extract(batch, requests or [MapRequest(maps=maps) for maps in holds_maps]))


@torch.no_grad()
def reference_maps(encoder, batch, protein):
    """Return the maps of one protein, (layer, head, length, length)."""
    layers = encoder.attention_maps(batch.tokens, encoder.layout(batch.offsets))
    return torch.stack([maps[protein] for maps in layers]).numpy()


def test_maps_equal_the_attention_of_the_encoder_between_residues(tiny_encoder, batch, proteins):
    for protein, (attention, sequence) in enumerate(
        zip(extract(tiny_encoder, batch), (proteins[12], proteins[3]), strict=True)
    ):
        whole = reference_maps(tiny_encoder, batch, protein)

        assert np.allclose(whole.sum(-1), 1, atol=1e-5)
        assert attention.num_residues == len(sequence)
        assert attention.maps.shape == (2, 4, len(sequence), len(sequence))
        assert np.allclose(attention.maps, whole[:, :, 1:-1, 1:-1], atol=1e-6)


def test_long_maps_are_held_as_maxima_of_blocks(tiny_encoder, whole_batch, proteins):
    region = slice(10, 410)
    batch = whole_batch(["".join(proteins)[:420]])

    (attention,) = extract(tiny_encoder, batch, requests=[MapRequest(maps=True, region=region)])

    whole = reference_maps(tiny_encoder, batch, 0)[:, :, 1:-1, 1:-1][..., region, region]
    assert attention.maps.shape == (2, 4, 100, 100)
    expected = whole.reshape(2, 4, 100, 4, 100, 4).max((3, 5))
    np.testing.assert_allclose(attention.maps, expected, atol=1e-6)


def test_held_maps_do_not_reference_the_maps_of_a_layer(tiny_encoder, batch):
    for attention in extract(tiny_encoder, batch):
        assert attention.maps.base is None


def test_statistics_cover_all_layers_and_heads_at_any_choice_of_maps(tiny_encoder, batch):
    for protein, attention in enumerate(extract(tiny_encoder, batch, layers=[1], heads=[2], holds_maps=(True, False))):
        whole = torch.from_numpy(reference_maps(tiny_encoder, batch, protein))
        expected = np.stack([head_statistics(layer) for layer in whole], axis=1)

        assert attention.sums.shape == (len(ALL_STATISTICS), 2, 4)
        assert np.allclose(attention.sums[: len(STATISTICS)], expected, rtol=1e-5)
        assert (attention.maps is None) == (protein == 1)


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(("layers", "heads"), [([1], [0, 3]), ([0, 1], [2])])
def test_maps_of_chosen_layers_and_heads_are_held(tiny_encoder, batch, layers, heads, is_fitted):
    head = ContactHead(8) if is_fitted else None

    attention, _ = extract(tiny_encoder, batch, layers=layers, heads=heads, contact_head=head)

    whole = reference_maps(tiny_encoder, batch, 0)[:, :, 1:-1, 1:-1]
    assert np.allclose(attention.maps, whole[layers][:, heads], atol=1e-6)


def test_contacts_are_predicted_from_all_layers_and_heads(tiny_encoder, batch):
    head = ContactHead(8)
    head.weight.copy_(100 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0)))

    attention, _ = extract(tiny_encoder, batch, layers=[1], heads=[2], contact_head=head)

    whole = torch.from_numpy(reference_maps(tiny_encoder, batch, 0)[:, :, 1:-1, 1:-1])
    assert np.allclose(attention.contacts, head(whole).numpy(), atol=1e-5)
    assert attention.contacts.std() > 0.01


def test_contacts_are_predicted_only_with_a_contact_head_and_for_held_maps(tiny_encoder, batch):
    assert [attention.contacts for attention in extract(tiny_encoder, batch)] == [None, None]

    held, not_held = extract(tiny_encoder, batch, contact_head=ContactHead(8), holds_maps=(True, False))

    assert held.contacts is not None
    assert (not_held.contacts, not_held.maps) == (None, None)


@pytest.mark.promise(10)
def test_attention_does_not_depend_on_the_other_sequences_in_a_batch(tiny_encoder, batch, whole_batch, proteins):
    together = extract(tiny_encoder, batch)

    (alone,) = extract(tiny_encoder, whole_batch([proteins[3]]), holds_maps=[True])

    assert np.allclose(together[1].maps, alone.maps, atol=1e-6)
    assert np.allclose(together[1].sums, alone.sums, rtol=1e-5)


def test_attention_on_an_amino_acid_is_the_sum_over_its_residues(tiny_encoder, batch, proteins):
    attention, _ = extract(tiny_encoder, batch, holds_maps=(True, False))

    sequence = np.array(list(proteins[12]))
    for letter, sums in zip(AMINO_ACIDS, attention.sums[len(STATISTICS) :], strict=True):
        assert np.allclose(sums, attention.maps[..., sequence == letter].sum((-1, -2)), rtol=1e-4)


def test_features_of_pairs_equal_those_of_a_contact_head(tiny_encoder, batch, proteins):
    length = len(proteins[12])
    is_contact = np.random.default_rng(0).random((length, length)) < 0.1
    pairs = ResiduePairs.from_contact_map(is_contact & is_contact.T, np.ones((length, length), bool), length * "A")

    attention, without = extract(tiny_encoder, batch, requests=[MapRequest(maps=True, pairs=pairs), MapRequest()])

    assert attention.features.shape == (8, len(pairs.first))
    assert np.allclose(attention.features, gather(pairs, head_features(attention.maps.reshape(8, length, length))))
    assert (without.features, without.maps) == (None, None)


def test_received_attention_is_the_mean_of_a_column(tiny_encoder, batch):
    attention, without = extract(tiny_encoder, batch, requests=[MapRequest(maps=True, received=True), MapRequest()])

    assert np.allclose(attention.received, attention.maps.mean(2).reshape(8, -1), atol=1e-7)
    assert without.received is None


def test_rollout_multiplies_the_mean_maps_of_the_layers(tiny_encoder):
    first, second = torch.rand(2, 4, 9, 9).softmax(-1)

    rollout = attention_rollout_step(attention_rollout_step(None, first), second)

    expected_first, expected_second = ((layer.mean(0) + torch.eye(9)) / 2 for layer in (first, second))
    assert torch.allclose(rollout, expected_second @ expected_first)
    assert torch.allclose(rollout.sum(-1), torch.ones(9))


@pytest.mark.parametrize(("text", "part"), [("1-9", slice(0, 9)), ("5-5", slice(4, 5)), ("8-40", slice(7, 20))])
def test_region_is_numbered_from_one_and_clipped_to_the_protein(text, part):
    assert parse_region(text, 20) == part


@pytest.mark.parametrize("text", ["", "5", "0-5", "5-4", "a-b", "1-2-3", "21-30"])
def test_invalid_region_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="region"):
        parse_region(text, 20)
