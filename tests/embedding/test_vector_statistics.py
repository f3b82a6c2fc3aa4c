import numpy as np
import pytest

from protembed.embedding import vector_statistics
from protembed.embedding.spread import Spread
from protembed.embedding.vector_statistics import VectorStatistics
from protembed.errors import VerificationError

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(40, 6)).astype(np.float32) + 3


def read(result, num_residues=None):
    num_residues = np.ones(result.num_proteins, np.int64) if num_residues is None else num_residues
    return VectorStatistics.read(result, num_residues)


def test_statistics_are_those_of_numpy_whatever_the_size_of_the_blocks(store, monkeypatch):
    whole = read(store(VECTORS))
    monkeypatch.setattr("protembed.embedding.stored_vectors._BLOCK", 100)
    monkeypatch.setattr(vector_statistics, "_BLOCK_NUMBERS", 30)
    parts = read(store(VECTORS))

    for found in (whole, parts):
        np.testing.assert_allclose(found.norms, np.linalg.norm(VECTORS, axis=1), rtol=1e-6)
        np.testing.assert_allclose(found.mean, VECTORS.mean(0, dtype=float))
        np.testing.assert_allclose(found.mean_squares, np.square(VECTORS, dtype=float).mean(0))
        np.testing.assert_array_equal(found.sample, VECTORS)
        assert (found.num_rows, found.num_not_finite, found.num_constant) == (40, 0, 0)
    assert (whole.hashes == parts.hashes).all()


def test_constant_dimensions_are_found_despite_rounding(store):
    vectors = VECTORS.copy()
    vectors[:, 1] = 0
    vectors[:, 3] = 0.1 + RNG.choice([0, 1e-8], size=40)  # one unit in the last digit

    assert read(store(vectors)).num_constant == 2


def test_vectors_that_are_not_finite_are_counted_and_left_out(store):
    vectors = VECTORS.copy()
    vectors[3, 2], vectors[7, 0] = np.nan, np.inf

    found = read(store(vectors))

    assert found.num_not_finite == 2
    assert np.flatnonzero(np.isnan(found.norms)).tolist() == [3, 7]
    assert len(found.sample) == 38 and 3 not in found.sampled
    np.testing.assert_allclose(found.mean, np.delete(VECTORS, [3, 7], axis=0).mean(0, dtype=float))


def test_vectors_of_residues_give_a_mean_norm_for_each_protein(store):
    result = store(VECTORS, ["M" * 10, "K" * 30], per_residue=True)

    found = read(result, np.array([10, 30]))

    norms = np.linalg.norm(VECTORS, axis=1)
    np.testing.assert_allclose(found.norms, [norms[:10].mean(), norms[10:].mean()], rtol=1e-6)
    assert (found.num_rows, found.hashes) == (40, None)


def test_large_result_is_sampled_so_that_memory_is_bounded(store, monkeypatch):
    monkeypatch.setattr(vector_statistics, "_MAX_SAMPLED_NUMBERS", 60)

    found = read(store(VECTORS))

    assert found.sample.shape == (10, 6)
    np.testing.assert_array_equal(found.sample, VECTORS[found.sampled])


def test_file_with_fewer_vectors_than_recorded_is_an_error(store):
    with pytest.raises(VerificationError, match="it contains 40 vectors, but 41 are recorded"):
        read(store(VECTORS), np.ones(41, np.int64))


# Spread


def test_cosines_are_those_of_all_pairs_before_and_after_centring(store):
    spread = Spread.measure(read(store(VECTORS)))

    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    assert len(spread.cosines) == 40 * 39 / 2
    np.testing.assert_allclose(np.sort(spread.cosines), np.sort((unit @ unit.T)[np.triu_indices(40, 1)]), atol=1e-5)
    assert np.median(spread.cosines) > 0.8
    assert abs(np.median(spread.centred_cosines)) < 0.1
    assert spread.share_of_mean == pytest.approx(9 / 10, abs=0.03)


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)], ids=["long", "wide"])
def test_planted_directions_have_the_variance(store, shape):
    weights, directions = RNG.normal(size=(shape[0], 2)) * [3, 1], np.linalg.qr(RNG.normal(size=(shape[1], 2)))[0]
    weights -= weights.mean(0)
    vectors = weights @ directions.T + 5

    spread = Spread.measure(read(store(vectors)))

    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(weights.T)))[::-1]
    assert spread.explained[0] == pytest.approx(eigenvalues[0] / eigenvalues.sum())
    assert spread.num_components(1) == 2
    assert spread.num_components(0.5) == 1
    np.testing.assert_allclose(np.cov(spread.positions.T), np.diag(eigenvalues), atol=1e-4)


def test_positions_do_not_depend_on_the_sign_of_an_eigenvector(store, monkeypatch):
    before = Spread.measure(read(store(VECTORS))).positions
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))

    np.testing.assert_array_equal(Spread.measure(read(store(VECTORS))).positions, before)


@pytest.mark.parametrize("vectors", [VECTORS[:9], np.tile(VECTORS[:1], (20, 1))], ids=["few", "alike"])
def test_few_or_equal_vectors_have_no_spread(store, vectors):
    assert Spread.measure(read(store(vectors))) is None
