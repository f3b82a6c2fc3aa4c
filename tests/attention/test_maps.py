import math

import numpy as np
import pytest
import torch

from protembed.attention.contacts import at, head_features, pairs_of
from protembed.attention.maps import (
    ALL_STATISTICS,
    STATISTICS,
    AttentionExtractor,
    HeadStatistics,
    MapRequest,
    ProteinAttention,
    head_statistics,
    parse_numbers,
    parse_region,
)
from protembed.data.alphabet import AMINO_ACIDS
from protembed.errors import ConfigError
from protembed.model.heads import ContactHead

# Four residues between <cls> and <eos>.
UNIFORM = torch.full((6, 6), 1 / 6)
ON_ITSELF = torch.eye(6)
ON_THE_NEXT = torch.eye(6).roll(1, dims=1)
ON_CLS = torch.eye(6)[torch.zeros(6, dtype=int)]


def means_of(weights):
    sums = head_statistics(weights[None])[:, 0]
    return dict(zip(STATISTICS, (sums / (len(weights) - 2)).tolist(), strict=True))


# Statistics of heads


def test_uniform_attention_over_n_tokens_has_the_entropy_ln_n():
    means = means_of(UNIFORM)

    assert means["entropy"] == pytest.approx(math.log(6))
    assert means["on_self"] == means["on_cls"] == means["on_eos"] == pytest.approx(1 / 6)
    # Two of four residues have one neighbour only.
    assert means["on_neighbours"] == pytest.approx((2 + 1) / 2 / 6)
    # Among four places 0 1 2 3 the mean distance from an end is 6 / 4, from the middle 4 / 4.
    assert means["mean_distance"] == pytest.approx((6 / 4 + 4 / 4) / 2)


def test_a_head_that_looks_at_itself():
    assert means_of(ON_ITSELF) == {name: float(name == "on_self") for name in STATISTICS}


def test_a_head_that_looks_at_the_next_token():
    # The last residue's next token is <eos>.
    expected = dict.fromkeys(STATISTICS, 0.0) | {"mean_distance": 0.75, "on_neighbours": 0.75, "on_eos": 0.25}

    assert means_of(ON_THE_NEXT) == pytest.approx(expected)


def test_a_head_that_looks_at_cls():
    assert means_of(ON_CLS) == {name: float(name == "on_cls") for name in STATISTICS}


def test_what_special_tokens_attend_to_does_not_count():
    weights = UNIFORM.clone()
    weights[0], weights[-1] = ON_ITSELF[0], ON_ITSELF[-1]

    assert means_of(weights) == means_of(UNIFORM)


def test_each_head_has_statistics_of_its_own():
    together = head_statistics(torch.stack([UNIFORM, ON_ITSELF]))

    assert together.shape == (len(STATISTICS), 2)
    assert torch.equal(together[:, 1], head_statistics(ON_ITSELF[None])[:, 0])


def test_means_are_over_all_residues_of_all_proteins():
    statistics = HeadStatistics()
    for sums, num_residues in (([[[6.0]]], 3), ([[[34.0]]], 17)):
        statistics.add(ProteinAttention(sums=np.array(sums), num_residues=num_residues))

    assert statistics.means().tolist() == [[[2.0]]]


# Maps


@pytest.fixture
def batch(whole_batch, proteins):
    return whole_batch([proteins[12], proteins[3]])


def read(encoder, batch, *, layers=(0, 1), heads=(0, 1, 2, 3), is_kept=(True, True), wanted=None, **options):
    reader = AttentionExtractor(encoder=encoder, layers=layers, heads=heads, **options)
    with torch.inference_mode():
        return reader.read(batch, wanted or [MapRequest(maps=kept) for kept in is_kept])


@torch.no_grad()
def maps_by_hand(encoder, batch, protein):
    """(layer, head, length, length) of one protein."""
    layers = encoder.attention_maps(batch.tokens, encoder.layout(batch.offsets))
    return torch.stack([maps[protein] for maps in layers]).numpy()


def test_maps_are_the_encoders_attention_between_residues(tiny_encoder, batch, proteins):
    for protein, (attention, sequence) in enumerate(
        zip(read(tiny_encoder, batch), (proteins[12], proteins[3]), strict=True)
    ):
        whole = maps_by_hand(tiny_encoder, batch, protein)

        assert np.allclose(whole.sum(-1), 1, atol=1e-5)
        assert attention.num_residues == len(sequence)
        assert attention.maps.shape == (2, 4, len(sequence), len(sequence))
        assert np.allclose(attention.maps, whole[:, :, 1:-1, 1:-1], atol=1e-6)


def test_long_maps_are_held_in_blocks_and_show_the_highest_of_each(tiny_encoder, whole_batch, proteins):
    region = slice(10, 410)
    batch = whole_batch(["".join(proteins)[:420]])

    (attention,) = read(tiny_encoder, batch, wanted=[MapRequest(maps=True, region=region)])

    whole = maps_by_hand(tiny_encoder, batch, 0)[:, :, 1:-1, 1:-1][..., region, region]
    assert attention.maps.shape == (2, 4, 100, 100)
    expected = whole.reshape(2, 4, 100, 4, 100, 4).max((3, 5))
    np.testing.assert_allclose(attention.maps, expected, atol=1e-6)


def test_no_layers_maps_outlive_what_is_held_of_them(tiny_encoder, batch):
    for attention in read(tiny_encoder, batch):
        assert attention.maps.base is None


def test_statistics_are_of_all_layers_and_heads_whatever_is_kept(tiny_encoder, batch):
    for protein, attention in enumerate(read(tiny_encoder, batch, layers=[1], heads=[2], is_kept=(True, False))):
        whole = torch.from_numpy(maps_by_hand(tiny_encoder, batch, protein))
        by_hand = np.stack([head_statistics(layer) for layer in whole], axis=1)

        assert attention.sums.shape == (len(ALL_STATISTICS), 2, 4)
        assert np.allclose(attention.sums[: len(STATISTICS)], by_hand, rtol=1e-5)
        assert (attention.maps is None) == (protein == 1)


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(("layers", "heads"), [([1], [0, 3]), ([0, 1], [2])])
def test_chosen_layers_and_heads_are_kept(tiny_encoder, batch, layers, heads, is_fitted):
    head = ContactHead(8) if is_fitted else None

    attention, _ = read(tiny_encoder, batch, layers=layers, heads=heads, contact_head=head)

    whole = maps_by_hand(tiny_encoder, batch, 0)[:, :, 1:-1, 1:-1]
    assert np.allclose(attention.maps, whole[layers][:, heads], atol=1e-6)


def test_contacts_come_from_the_maps_of_all_layers_and_heads(tiny_encoder, batch):
    head = ContactHead(8)
    head.weight.copy_(100 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0)))

    attention, _ = read(tiny_encoder, batch, layers=[1], heads=[2], contact_head=head)

    whole = torch.from_numpy(maps_by_hand(tiny_encoder, batch, 0)[:, :, 1:-1, 1:-1])
    assert np.allclose(attention.contacts, head(whole).numpy(), atol=1e-5)
    assert attention.contacts.std() > 0.01


def test_there_are_no_contacts_without_a_head_nor_of_what_is_not_kept(tiny_encoder, batch):
    assert [attention.contacts for attention in read(tiny_encoder, batch)] == [None, None]

    kept, not_kept = read(tiny_encoder, batch, contact_head=ContactHead(8), is_kept=(True, False))

    assert kept.contacts is not None
    assert (not_kept.contacts, not_kept.maps) == (None, None)


@pytest.mark.promise(10)
def test_attention_does_not_depend_on_the_company_of_a_pack(tiny_encoder, batch, whole_batch, proteins):
    together = read(tiny_encoder, batch)

    (alone,) = read(tiny_encoder, whole_batch([proteins[3]]), is_kept=[True])

    assert np.allclose(together[1].maps, alone.maps, atol=1e-6)
    assert np.allclose(together[1].sums, alone.sums, rtol=1e-5)


def test_attention_on_each_amino_acid_is_that_on_its_residues(tiny_encoder, batch, proteins):
    attention, _ = read(tiny_encoder, batch, is_kept=(True, False))

    sequence = np.array(list(proteins[12]))
    for letter, sums in zip(AMINO_ACIDS, attention.sums[len(STATISTICS) :], strict=True):
        assert np.allclose(sums, attention.maps[..., sequence == letter].sum((-1, -2)), rtol=1e-4)


def test_features_of_known_pairs_are_those_of_a_contact_head(tiny_encoder, batch, proteins):
    length = len(proteins[12])
    is_contact = np.random.default_rng(0).random((length, length)) < 0.1
    pairs = pairs_of(is_contact & is_contact.T, np.ones((length, length), bool), length * "A")

    attention, other = read(tiny_encoder, batch, wanted=[MapRequest(maps=True, pairs=pairs), MapRequest()])

    assert attention.features.shape == (8, len(pairs.first))
    assert np.allclose(attention.features, at(pairs, head_features(attention.maps.reshape(8, length, length))))
    assert (other.features, other.maps) == (None, None)


def test_what_a_residue_receives_is_the_mean_of_its_column(tiny_encoder, batch):
    attention, other = read(tiny_encoder, batch, wanted=[MapRequest(maps=True, received=True), MapRequest()])

    assert np.allclose(attention.received, attention.maps.mean(2).reshape(8, -1), atol=1e-7)
    assert other.received is None


def test_the_rollout_multiplies_the_layers_mean_maps(tiny_encoder, batch):
    attention, _ = read(tiny_encoder, batch, computes_rollout=True, is_kept=(True, False))

    first, second = ((layer.mean(0) + np.eye(layer.shape[-1])) / 2 for layer in maps_by_hand(tiny_encoder, batch, 0))
    assert np.allclose(attention.rollout, (second @ first)[1:-1, 1:-1], atol=1e-6)


@pytest.mark.parametrize(("text", "part"), [("1-9", slice(0, 9)), ("5-5", slice(4, 5)), ("8-40", slice(7, 20))])
def test_a_region_is_numbered_from_one_and_ends_with_the_protein(text, part):
    assert parse_region(text, 20) == part


@pytest.mark.parametrize("text", ["", "5", "0-5", "5-4", "a-b", "1-2-3", "21-30"])
def test_what_is_no_region_of_the_protein_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="--region"):
        parse_region(text, 20)


# Lists of layers and heads


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("1", [0]),
        ("1,4-6", [0, 3, 4, 5]),
        ("6,2,2-3", [1, 2, 5]),
        (" 1 , 3 ", [0, 2]),
        ("3-3", [2]),
    ],
)
def test_a_list_of_numbers_is_read_from_one_in_ascending_order(text, chosen):
    assert parse_numbers("--heads", text, 6) == chosen


@pytest.mark.parametrize("text", ["", "x", "1,", "3-", "-3", "1.5", "1-2-3", "²", "6-4", "1,6-4"])
def test_what_is_no_list_of_numbers_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="--heads is .* but ") as caught:
        parse_numbers("--heads", text, 6)

    assert caught.value.exit_status == 2


@pytest.mark.parametrize("text", ["0", "7", "1,7", "0-3", "5-7"])
def test_a_number_that_is_not_there_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="this model has 1 to 6"):
        parse_numbers("--layers", text, 6)
