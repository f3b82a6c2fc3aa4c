import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool
from protembed.errors import IllegalResidueError
from protembed.inference.engine import Engine
from protembed.inference.representation import Representation


@pytest.fixture(scope="module")
def records(proteins_fasta):
    return list(read_fasta([proteins_fasta]))


@pytest.fixture
def representation(tiny_encoder):
    return Representation(encoder=tiny_encoder, layer=2, pooling="mean")


def lengths(batch):
    return (batch.offsets.diff() - 2).tolist()


def rows(batch):
    return batch.rows.tolist()


def results_of(engine, compute, proteins):
    return [result for _, result in engine.run(compute, proteins)]


def test_results_come_in_the_order_of_the_input(records, pool):
    results = list(Engine(pool=pool).run(lengths, records))

    assert [record for record, _ in results] == records
    assert [length for _, length in results] == [len(record.sequence) for record in records]


def test_no_protein_gives_no_result(pool):
    assert list(Engine(pool=pool).run(lengths, [])) == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(10)),
    tokens_per_pack=st.sampled_from([1, 200, 10_000]),
    tokens_per_chunk=st.sampled_from([1, 400, 10_000]),
    num_workers=st.integers(1, 3),
)
def test_no_vector_depends_on_its_company(
    representation, records, whole_batch, order, tokens_per_pack, tokens_per_chunk, num_workers
):
    chosen = [records[index] for index in order]
    with WorkerPool(num_workers) as workers, torch.no_grad():
        engine = Engine(pool=workers, tokens_per_pack=tokens_per_pack, tokens_per_chunk=tokens_per_chunk)
        together = results_of(engine, representation.proteins, chosen)
        alone = [representation.proteins(whole_batch([record.sequence]))[0] for record in chosen]

    assert np.allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert not np.allclose(together, together[::-1], atol=1e-3)


def test_no_bit_of_a_vector_depends_on_the_number_of_workers(representation, records):
    vectors = []
    for num_workers in (1, 3):
        with WorkerPool(num_workers) as workers:
            vectors.append(results_of(Engine(pool=workers), representation.proteins, records))

    assert np.array_equal(*vectors)


@pytest.mark.parametrize("tokens_per_chunk", [1, 300, 100_000])
def test_rows_are_numbered_over_all_windows(records, pool, tokens_per_chunk):
    engine = Engine(pool=pool, tokens_per_pack=200, tokens_per_chunk=tokens_per_chunk)

    assert results_of(engine, rows, records) == list(range(len(records)))


def test_packs_hold_no_more_than_their_budget_and_a_longer_protein_stands_alone(records, pool):
    engine = Engine(pool=pool, tokens_per_pack=200)

    packs = results_of(engine, lambda batch: [lengths(batch)] * len(batch.rows), records)

    assert all(sum(pack) + 2 * len(pack) <= 200 or len(pack) == 1 for pack in packs)
    assert max(map(len, packs)) > 1


def test_no_more_than_a_window_is_read_before_its_results_are_handed_over(records, pool):
    num_read = itertools.count()
    endless = (record for record in itertools.cycle(records) if next(num_read) >= 0)
    engine = Engine(pool=pool, tokens_per_chunk=1000)

    first_three = list(itertools.islice(engine.run(lengths, endless), 3))

    assert [record for record, _ in first_three] == records[:3]
    assert next(num_read) < 10


def test_results_are_computed_on_the_pools_threads_without_gradients(representation, records):
    def describe(batch):
        state = threading.current_thread(), torch.is_inference_mode_enabled(), torch.get_num_threads()
        return [state] * len(batch.rows)

    with WorkerPool(2) as workers:
        states = results_of(Engine(pool=workers, tokens_per_pack=1), describe, records)

    assert all(is_inference and num_threads == 1 for _, is_inference, num_threads in states)
    assert threading.current_thread() not in {thread for thread, *_ in states}


def test_an_error_while_computing_reaches_the_caller(records, pool):
    def fail(batch):
        if 5 in batch.rows:
            raise MemoryError("out of memory")
        return rows(batch)

    with pytest.raises(MemoryError, match="out of memory"):
        list(Engine(pool=pool, tokens_per_pack=100).run(fail, records))

    assert results_of(Engine(pool=pool), rows, records[:3]) == [0, 1, 2]


def test_an_error_while_reading_reaches_the_caller_after_the_windows_before_it(tmp_path, pool):
    (tmp_path / "bad.fasta").write_text(">a\nMKTAYI\n>b\nMKTA\n>c\nMK1\n")
    results = Engine(pool=pool, tokens_per_chunk=5).run(lengths, read_fasta([tmp_path / "bad.fasta"]))

    assert [next(results)[1], next(results)[1]] == [6, 4]
    with pytest.raises(IllegalResidueError, match="record 'c'"):
        next(results)


@pytest.mark.parametrize("num_results", [0, 2])
def test_one_result_per_protein_is_insisted_on(records, pool, num_results):
    with pytest.raises(ValueError, match="zip"):
        list(Engine(pool=pool).run(lambda batch: [0] * num_results, records[:1]))
