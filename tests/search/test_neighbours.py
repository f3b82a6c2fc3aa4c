import numpy as np
import pytest
import torch

from protembed.device import WorkerPool
from protembed.search import neighbours
from protembed.search.neighbours import NeighbourSearch
from protembed.search.vectors import SelectedVectors, Vectors


def run(queries, database, k=5, **settings):
    search = NeighbourSearch(database=Vectors([database]), k=k, **settings)
    with WorkerPool(2) as pool:
        parts = list(search.run(Vectors([queries]), pool))
    return neighbours.concatenate(parts)


def brute_force(queries, database, k, *, metric="cosine", centre=False, query_rows=None):
    """Compute all cosines, distances and z-scores in float64, and sort."""
    queries, database = queries.astype(np.float64), database.astype(np.float64)
    mean = database.mean(0) if centre else 0.0
    queries, database = queries - mean, database - mean

    def unit(vectors):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms == 0, 1, norms)

    cosines = unit(queries) @ unit(database).T
    distances = np.linalg.norm(queries[:, None] - database[None], axis=2)
    is_own = np.zeros(cosines.shape, bool)
    if query_rows is not None:
        is_own[np.arange(len(queries)), query_rows] = True
    key = np.where(is_own, np.inf, -cosines if metric == "cosine" else distances)
    order = np.argsort(key, axis=1, kind="stable")[:, : min(k, len(database) - (query_rows is not None))]
    others = np.where(is_own, np.nan, cosines)
    deviation = np.nanstd(others, axis=1, keepdims=True)
    deviation[deviation < 1e-9] = np.inf
    z_scores = (cosines - np.nanmean(others, axis=1, keepdims=True)) / deviation
    return order, *(np.take_along_axis(values, order, 1) for values in (cosines, distances, z_scores))


def assert_equal(found, expected):
    order, cosines, distances, z_scores = expected
    number = order.shape[1]
    assert (found.rows[:, number:] == -1).all()
    assert np.array_equal(found.rows[:, :number], order)
    assert np.allclose(found.cosines[:, :number], cosines, rtol=0, atol=1e-12)
    assert np.allclose(found.z_scores[:, :number], z_scores, rtol=1e-6, atol=1e-6)
    if found.distances is not None:
        assert np.allclose(found.distances[:, :number], distances, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def product_dtype(request, monkeypatch):
    """Multiply in a precision, whatever is fast on this processor."""
    monkeypatch.setattr(neighbours, "fast_product_dtype", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("centre", [False, True])
def test_neighbours_equal_those_of_a_brute_force_search_in_float64(draw, metric, centre, product_dtype):
    queries, database = draw(40), draw(2500, seed=1)

    found = run(queries, database, metric=metric, is_centred=centre)

    assert_equal(found, brute_force(queries, database, 5, metric=metric, centre=centre))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_all_against_all_leaves_out_the_protein_itself(draw, metric):
    database = draw(600)
    own = np.arange(600)

    found = run(database, database, metric=metric, query_rows=own)

    assert_equal(found, brute_force(database, database, 5, metric=metric, query_rows=own))
    assert not (found.rows == own[:, None]).any()


def test_nearly_equal_rows_are_ordered_by_what_rounding_takes_from_them(draw, product_dtype):
    database = draw(600)
    database[:400] = database[0] + 1e-4 * draw(400, seed=1)

    found = run(database[:20], database, query_rows=np.arange(20))

    assert_equal(found, brute_force(database[:20], database, 5, query_rows=np.arange(20)))


def test_the_first_of_many_equal_rows_are_found(draw, product_dtype):
    database = np.repeat(draw(2, seed=1), 1500, axis=0)

    found = run(database[-3:], database, k=5)

    assert (found.rows == np.arange(1500, 1505)).all()


def test_rows_may_come_nearer_and_nearer(draw, product_dtype):
    query, other = draw(2, dim=8)
    database = (query + np.linspace(4, 0.1, 3000)[:, None] * other).astype(np.float32)

    found = run(query[None], database)

    assert_equal(found, brute_force(query[None], database, 5))


def test_neighbours_have_the_same_bits_with_any_number_of_threads(draw):
    search = NeighbourSearch(database=Vectors([draw(900)]), k=7, query_rows=np.arange(900))
    found = []
    for num_threads in (1, 2, 3):
        with WorkerPool(num_threads) as pool:
            found.append(neighbours.concatenate(list(search.run(search.database, pool))))

    for other in found[1:]:
        assert np.array_equal(other.rows, found[0].rows)
        assert np.array_equal(other.cosines, found[0].cosines)


def test_blocks_change_nothing(draw, monkeypatch):
    queries, database = draw(50), draw(90, seed=1)
    whole = run(queries, database)
    monkeypatch.setattr(neighbours, "_QUERY_ROWS", 7)
    monkeypatch.setattr(neighbours, "_SCREEN_ROWS", 3)
    monkeypatch.setattr(neighbours, "_NUM_PAIRS", 5)
    monkeypatch.setattr(neighbours, "blocks_of", lambda vectors: _small_blocks(vectors))

    again = run(queries, database)

    assert np.array_equal(again.rows, whole.rows)
    assert np.allclose(again.cosines, whole.cosines, rtol=0, atol=1e-15)


def _small_blocks(vectors):
    for start in range(0, len(vectors), 11):
        yield start, vectors.rows(start, start + 11)


def test_more_neighbours_than_the_database_has_are_all_of_it(draw):
    queries, database = draw(3), draw(4, seed=1)

    assert_equal(run(queries, database, k=10), brute_force(queries, database, 10))


def test_one_row_has_no_neighbour_but_itself(draw):
    row = draw(1)

    assert run(row, row, query_rows=np.array([0])).rows.tolist() == [[-1]]
    assert run(row, row).rows.tolist() == [[0]]
    assert run(row, row).z_scores.tolist() == [[0.0]]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_vector_of_zeros_has_cosines_of_zero_and_no_z_score(draw, metric):
    database = draw(20)
    database[3] = 0
    own = np.arange(20)

    found = run(database, database, k=19, metric=metric, query_rows=own)

    assert_equal(found, brute_force(database, database, 19, metric=metric, query_rows=own))
    assert not found.cosines[3].any()
    assert not found.z_scores[3].any()


def test_equally_near_rows_come_in_their_order(draw):
    database = np.concatenate([draw(3, seed=1)] * 3)

    found = run(draw(5), database, k=9)

    for rows in found.rows.reshape(5, 3, 3):
        assert (np.diff(rows) == 3).all()


def test_a_close_pair_among_long_vectors_is_distinguished_from_the_others(draw):
    database = draw(300, dim=32) + 1000
    database[7] = database[5] * np.float32(1 + 1e-6)
    database[7, 0] += np.float32(0.01)

    found = run(database[5:6], database, metric="euclidean", query_rows=np.array([5]))

    assert_equal(found, brute_force(database[5:6], database, 5, metric="euclidean", query_rows=np.array([5])))


def test_members_of_the_own_group_are_no_neighbours(draw):
    database, groups = draw(60), np.arange(60) // 3

    found = run(database, database, k=60, query_rows=np.arange(60), groups=groups)

    assert (groups[found.rows[:, :57]] != groups[:, None]).all()
    assert (found.rows[:, 57:] == -1).all()


def test_selected_rows_are_searched_like_an_array_of_them(draw):
    database, selected = draw(80), np.arange(0, 80, 3)
    search = NeighbourSearch(database=SelectedVectors(Vectors([database[:30], database[30:]]), selected), k=4)
    with WorkerPool(1) as pool:
        (found,) = search.run(Vectors([draw(5, seed=1)]), pool)

    assert_equal(found, brute_force(draw(5, seed=1), database[selected], 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_finds_the_same_neighbours(draw):
    queries, database = draw(40), draw(700, seed=1)

    found = run(queries, database, device=torch.device("cuda"))

    assert_equal(found, brute_force(queries, database, 5))
