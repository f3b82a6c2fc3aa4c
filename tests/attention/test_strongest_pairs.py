import numpy as np
import pytest
import torch

from protembed.attention.maps import AttentionExtractor, MapRequest
from protembed.attention.pictures import encode_strongest
from protembed.attention.strongest_pairs import NUM_STRONGEST, SEPARATIONS, strongest_pairs
from protembed.inference.computation import run_to_end


def sorted_pairs(weights, separation):
    """List all pairs that are far enough apart, the strongest first and those of earlier residues before others."""
    pairs = [(row, column) for row, column in np.ndindex(weights.shape) if abs(row - column) >= separation]
    return sorted(pairs, key=lambda pair: -weights[pair])


@pytest.mark.parametrize("num_residues", [1, 2, 7, 12, 60])
@pytest.mark.parametrize("num_levels", [3, 10_000], ids=["many ties", "few ties"])
def test_strongest_pairs_are_the_first_of_all_sorted_pairs(num_residues, num_levels):
    weights = np.random.default_rng(0).integers(1, num_levels, (num_residues, num_residues)).astype(np.float32)

    found = strongest_pairs(weights)

    for number, separation in enumerate(SEPARATIONS):
        expected = sorted_pairs(weights, separation)[:NUM_STRONGEST]
        num = len(expected)
        pairs = list(zip(found.rows[number].tolist(), found.columns[number].tolist(), strict=True))
        assert pairs[:num] == expected
        assert found.weights[number].tolist() == [*(weights[pair] for pair in expected), *[0] * (NUM_STRONGEST - num)]


def test_strongest_pairs_leave_the_map_unchanged():
    weights = np.random.default_rng(0).random((20, 20), np.float32)
    before = weights.copy()
    strongest_pairs(weights)

    assert np.array_equal(weights, before)


def test_strongest_pairs_of_a_long_protein_are_single_residues_of_the_region(tiny_checkpoint, whole_batch):
    sequence = "".join(np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), 40))
    extractor = AttentionExtractor(encoder=tiny_checkpoint.encoder, layers=[1], heads=[0, 2], max_pixels=8)
    whole = AttentionExtractor(encoder=tiny_checkpoint.encoder, layers=[1], heads=[0, 2])
    batch, region = whole_batch([sequence]), slice(5, 35)

    with torch.inference_mode():
        (protein,) = run_to_end(extractor.extract(batch, [MapRequest(maps=True, region=region)]))
        (complete,) = run_to_end(whole.extract(batch, [MapRequest(maps=True, region=region)]))

    assert protein.maps.shape == (1, 2, 8, 8)
    assert protein.strongest.weights.shape == (1, 2, len(SEPARATIONS), NUM_STRONGEST)
    rows, columns = protein.strongest.rows[0, :, 0].tolist(), protein.strongest.columns[0, :, 0].tolist()
    for head, weights in enumerate(complete.maps[0]):
        assert list(zip(rows[head], columns[head], strict=True)) == sorted_pairs(weights, 0)[:NUM_STRONGEST]


def test_compressed_pairs_are_read_as_they_were(make_displayed, decompress):
    strongest = make_displayed(num_residues=300).strongest

    encoded = encode_strongest(strongest)

    content, num = decompress(encoded), strongest.rows.size
    assert np.array_equal(np.frombuffer(content, "<u2", num), strongest.rows.ravel())
    assert np.array_equal(np.frombuffer(content, "<u2", num, 2 * num), strongest.columns.ravel())
    assert np.array_equal(np.frombuffer(content, "<f4", num, 4 * num), strongest.weights.ravel())
    assert encoded["separations"] == SEPARATIONS
