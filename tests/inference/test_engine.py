import itertools
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from protembed.config.common import DeviceConfig
from protembed.config.model_sizes import SIZES, ESM2Shape, ESMCShape
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import make_crop
from protembed.data.fasta import read_fasta
from protembed.data.windows import window_spans
from protembed.device import WorkerPool
from protembed.errors import IllegalResidueError, TooLongForMemoryError
from protembed.inference.computation import run_to_end
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine, InferenceJob, inference_engine, whole_proteins

PARITY = {"rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True)
class Protein:
    sequence: str


@pytest.fixture(scope="module")
def records(proteins_fasta):
    return list(read_fasta([proteins_fasta]))


@pytest.fixture
def representation(family_encoder):
    return Embedder(encoder=family_encoder, layers=(2,), poolings=("mean",), layer_dim=32, window_residues=None)


def lengths_of(batch):
    return (batch.offsets.diff() - 2).tolist()


def rows_of(batch):
    return batch.rows.tolist()


def at_once(compute):
    """Make a computation without pauses from a function of a batch."""

    def computation(batch):
        yield from ()
        return compute(batch)

    return computation


def tokens_of(batch):
    return list(batch.tokens.split(batch.offsets.diff().tolist()))


LENGTHS, ROWS = whole_proteins(at_once(lengths_of)), whole_proteins(at_once(rows_of))


def windows_of(window_residues, compute=tokens_of, **options):
    """Compute the tokens of each window of each protein, with its span."""

    def spans(protein):
        return window_spans(len(protein.sequence), window_residues)

    def crops(protein):
        return (make_crop(encode(protein.sequence), *span) for span in spans(protein))

    def join(protein, windows):
        return list(zip(windows, spans(protein), strict=True))

    return InferenceJob(crops=crops, compute=at_once(compute), join=join, **options)


def results_of(engine, job, proteins):
    return [result for _, result in engine.run(job, proteins)]


def vectors_of(engine, job, proteins):
    return np.stack([embedding.values for embedding in results_of(engine, job, proteins)])


# Order, and other sequences in the batch


@pytest.mark.promise(10)
def test_results_have_the_order_of_the_input(records, pool):
    results = list(Engine(pool=pool).run(LENGTHS, records))

    assert [record for record, _ in results] == records
    assert [length for _, length in results] == [len(record.sequence) for record in records]


def test_an_empty_input_gives_no_results(pool):
    assert list(Engine(pool=pool).run(LENGTHS, [])) == []


@pytest.mark.promise(10, 24)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(10)),
    window_residues=st.sampled_from([None, 40, 80]),
    micro_batch_tokens=st.sampled_from([1, 200, 10_000]),
    tokens_per_chunk=st.sampled_from([1, 400, 10_000]),
    num_workers=st.integers(1, 3),
)
def test_vectors_do_not_depend_on_other_sequences_in_the_batch(
    representation, records, order, window_residues, micro_batch_tokens, tokens_per_chunk, num_workers
):
    chosen = [records[index] for index in order]
    job = replace(representation, window_residues=window_residues).proteins()
    with WorkerPool(num_workers) as workers:
        engine = Engine(pool=workers, micro_batch_tokens=micro_batch_tokens, tokens_per_chunk=tokens_per_chunk)
        together = vectors_of(engine, job, chosen)
        alone = np.concatenate([vectors_of(Engine(pool=workers), job, [record]) for record in chosen])

    np.testing.assert_allclose(together, alone, **PARITY)
    assert not np.allclose(together, together[::-1], atol=1e-3)


@pytest.mark.promise(10)
def test_a_single_protein_gets_the_vector_of_the_bare_encoder(representation, records, whole_batch, pool):
    together = vectors_of(Engine(pool=pool), representation.proteins(), records[:10])

    with torch.no_grad():
        alone = [
            run_to_end(representation.proteins().compute(whole_batch([record.sequence])))[0].values
            for record in records[:10]
        ]
    np.testing.assert_allclose(together, alone, **PARITY)


@pytest.mark.promise(10)
@pytest.mark.parametrize("window_residues", [None, 50])
def test_vectors_have_the_same_bits_with_any_number_of_workers(representation, records, window_residues):
    job = replace(representation, window_residues=window_residues).proteins()
    vectors = []
    for num_workers in (1, 3):
        with WorkerPool(num_workers) as workers:
            vectors.append(vectors_of(Engine(pool=workers), job, records))

    np.testing.assert_array_equal(*vectors)


@pytest.mark.promise(10)
@pytest.mark.parametrize("tokens_per_chunk", [1, 300, 100_000])
def test_rows_are_numbered_over_all_chunks(records, pool, tokens_per_chunk):
    engine = Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=tokens_per_chunk)

    assert results_of(engine, ROWS, records) == list(range(len(records)))


# Micro-batches and chunks


def test_micro_batches_keep_to_their_budget_and_a_longer_protein_is_alone(records, pool):
    engine = Engine(pool=pool, micro_batch_tokens=200)

    micro_batches = results_of(
        engine, whole_proteins(at_once(lambda batch: [lengths_of(batch)] * len(batch.rows))), records
    )

    assert all(sum(micro_batch) + 2 * len(micro_batch) <= 200 or len(micro_batch) == 1 for micro_batch in micro_batches)
    assert max(map(len, micro_batches)) > 1


def test_windows_and_whole_proteins_are_never_in_one_micro_batch(records, pool):
    rows = {"windows": set(), "whole": set()}

    def note(batch):
        are_whole = {(crop[0] == CLS and crop[-1] == EOS).item() for crop in tokens_of(batch)}
        assert len(are_whole) == 1
        rows["whole" if are_whole.pop() else "windows"].update(rows_of(batch))
        return tokens_of(batch)

    list(Engine(pool=pool).run(windows_of(80, note), records))

    assert rows["windows"] == {row for row, record in enumerate(records) if len(record.sequence) > 80}
    assert rows["whole"] == set(range(len(records))) - rows["windows"]


def test_at_most_two_chunks_are_read_before_results_are_yielded(records, pool):
    num_read = itertools.count()
    endless = (record for record in itertools.cycle(records) if next(num_read) >= 0)
    engine = Engine(pool=pool, micro_batch_tokens=100, tokens_per_chunk=1000)
    this, following = itertools.islice(engine.run_committed(LENGTHS, records), 2)

    first_three = list(itertools.islice(engine.run(LENGTHS, endless), 3))

    assert [record for record, _ in first_three] == records[:3]
    assert next(num_read) <= len(this) + len(following) < 20


def test_the_next_chunk_starts_before_the_last_results_of_this_one_arrive(records):
    second_was_begun = threading.Event()

    def compute(batch):
        if 0 in batch.rows:
            assert second_was_begun.wait(timeout=60)
        if 1 in batch.rows:
            second_was_begun.set()
        return rows_of(batch)

    with WorkerPool(2) as workers:
        engine = Engine(pool=workers, tokens_per_chunk=1)
        assert results_of(engine, whole_proteins(at_once(compute)), records[:3]) == [0, 1, 2]


def test_the_start_of_chunks_depends_on_the_proteins_alone(representation, records):
    chunks = []
    for num_workers in (1, 2, 4):
        with WorkerPool(num_workers) as workers:
            engine = Engine(pool=workers, micro_batch_tokens=200, tokens_per_chunk=1000)
            chunks.append([[record.id for record, _ in chunk] for chunk in engine.run_committed(LENGTHS, records)])

    assert chunks[0] == chunks[1] == chunks[2]
    assert len(chunks[0]) >= 3
    assert sum(chunks[0], []) == [record.id for record in records]


@pytest.mark.parametrize("window_residues", [None, 50])
def test_resuming_after_any_chunk_gives_the_same_bits(representation, records, pool, window_residues):
    job = replace(representation, window_residues=window_residues).proteins()
    engine = Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=1000)
    chunks = list(engine.run_committed(job, records))
    vectors = np.stack([embedding.values for chunk in chunks for _, embedding in chunk])

    for num_done in itertools.accumulate(map(len, chunks[:-1])):
        resumed = vectors_of(engine, job, records[num_done:])
        np.testing.assert_array_equal(resumed, vectors[num_done:])


def test_larger_models_hold_fewer_tokens_but_always_some_micro_batches():
    held = []
    for size in ("t4_1M", "t6_8M", "t12_35M", "t33_650M"):
        with inference_engine(DeviceConfig(threads=1), torch.device("cpu"), SIZES[size]) as engine:
            assert engine.tokens_per_chunk >= 8 * engine.micro_batch_tokens
            held.append(engine.tokens_per_chunk)

    assert held == [65_536, 65_536, 14_563, 8_192]


def test_the_tokens_of_a_chunk_follow_the_weights_of_a_layer():
    held = []
    for shape_type in (ESM2Shape, ESMCShape):  # the feed-forward part of ESM-C is rounded up
        shape = shape_type(num_layers=10, dim=512, num_heads=8)
        with inference_engine(DeviceConfig(threads=1), torch.device("cpu"), shape) as engine:
            held.append(engine.tokens_per_chunk * shape.num_layer_weights)

    assert held[0] == pytest.approx(held[1], rel=1e-3)


@pytest.mark.promise(16)
def test_identical_proteins_of_a_chunk_are_computed_once_and_share_the_result(records, pool):
    computed = []

    def compute(batch):
        computed.extend(rows_of(batch))
        return lengths_of(batch)

    chosen = [records[index] for index in (4, 0, 4, 7, 0, 4)]
    results = list(Engine(pool=pool).run(whole_proteins(at_once(compute)), chosen))

    assert sorted(computed) == [0, 1, 3]
    assert [record for record, _ in results] == chosen
    assert [length for _, length in results] == [len(record.sequence) for record in chosen]


def test_identical_long_proteins_share_their_windows(records, pool):
    computed = []

    def compute(batch):
        computed.extend(rows_of(batch))
        return tokens_of(batch)

    first, last = results_of(Engine(pool=pool), windows_of(80, compute), [records[0], records[2], records[0]])[::2]

    assert computed.count(0) == len(first) == len(window_spans(len(records[0].sequence), 80))
    assert set(computed) == {0, 1}
    assert first == last


# Long proteins


def test_a_long_protein_has_cls_in_its_first_window_and_eos_in_its_last(records, pool):
    sequence = records[0].sequence
    residues = encode(sequence).tolist()

    (windows,) = results_of(Engine(pool=pool, micro_batch_tokens=100), windows_of(80), records[:1])

    (first, (start, stop)), *middle, (last, (last_start, last_stop)) = windows
    assert [span for _, span in windows] == window_spans(len(sequence), 80)
    assert first.tolist() == [CLS, *residues[start:stop]]
    assert last.tolist() == [*residues[last_start:last_stop], EOS]
    assert len(middle) > 3
    assert all(tokens.tolist() == residues[start:stop] for tokens, (start, stop) in middle)


def test_a_protein_as_long_as_a_window_is_computed_whole(pool):
    proteins = [Protein("MKTAYIAKQR"), Protein("MKTAYIAKQRW")]

    whole, windowed = results_of(Engine(pool=pool), windows_of(10), proteins)

    ((tokens, _),) = whole
    assert tokens.tolist() == [CLS, *encode("MKTAYIAKQR").tolist(), EOS]
    assert [span for _, span in windowed] == [(0, 10), (1, 11)]


def test_merging_keeps_the_windows_of_each_protein_apart(records, pool):
    engine = Engine(pool=pool, micro_batch_tokens=150, tokens_per_chunk=1500)

    for record, result in engine.run(windows_of(60), records):
        residues = encode(record.sequence).tolist()
        inner = [[token for token in tokens.tolist() if token not in (CLS, EOS)] for tokens, _ in result]
        assert inner == [residues[start:stop] for start, stop in window_spans(len(residues), 60)]


# Memory


def allocate_too_much(batch):
    torch.empty(1 << 58)  # the CPU's allocator, with its message


def raising(error):
    def fail(batch):
        raise error

    return fail


OUT_OF_MEMORY = {
    "cuda": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")),
    "python": raising(MemoryError()),
    "cpu": allocate_too_much,
}


def with_memory_for(num_tokens, fail, compute=tokens_of, attempts=None):
    def limited(batch):
        if attempts is not None:
            attempts.append(batch.num_tokens)
        if batch.num_tokens > num_tokens:
            fail(batch)
        return compute(batch)

    return limited


@pytest.mark.promise(22)
@pytest.mark.parametrize("fail", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_micro_batch_that_does_not_fit_is_halved_and_results_keep_their_order(records, pool, fail):
    attempts = []
    limited = with_memory_for(390, fail, attempts=attempts)

    results = results_of(Engine(pool=pool), whole_proteins(at_once(limited)), records)

    assert max(attempts) > 390
    for record, tokens in zip(records, results, strict=True):
        assert tokens.tolist() == [CLS, *encode(record.sequence).tolist(), EOS]


@pytest.mark.promise(22)
def test_halving_changes_no_vector(representation, records, pool):
    job = representation.proteins()
    limited = replace(job, compute=with_memory_for(390, OUT_OF_MEMORY["cuda"], job.compute))

    halved = vectors_of(Engine(pool=pool), limited, records)

    np.testing.assert_allclose(halved, vectors_of(Engine(pool=pool), job, records), **PARITY)


@pytest.mark.promise(22)
def test_micro_batches_of_windows_are_halved_too(records, pool):
    limited = with_memory_for(70, OUT_OF_MEMORY["cpu"])

    halved, expected = (
        results_of(Engine(pool=pool), windows_of(60, windows), records[:3]) for windows in (limited, tokens_of)
    )

    for windows, expected_windows in zip(halved, expected, strict=True):
        for (tokens, span), (expected_tokens, expected_span) in zip(windows, expected_windows, strict=True):
            assert torch.equal(tokens, expected_tokens)
            assert span == expected_span


@pytest.mark.parametrize("fail", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_single_protein_that_does_not_fit_is_an_error_with_its_length(records, pool, fail):
    with pytest.raises(TooLongForMemoryError, match="a single window of 385 tokens") as caught:
        results_of(Engine(pool=pool), whole_proteins(at_once(with_memory_for(384, fail))), records)

    assert caught.value.exit_status == 1
    assert "`window_residues`" in str(caught.value)


@pytest.mark.promise(22)
def test_a_single_window_that_does_not_fit_is_an_error_with_its_length(records, pool):
    limited = with_memory_for(59, OUT_OF_MEMORY["python"])

    with pytest.raises(TooLongForMemoryError, match="a single window of 6[01] tokens"):
        results_of(Engine(pool=pool), windows_of(60, limited), records)


@pytest.mark.promise(22)
@pytest.mark.parametrize("window_residues", [None, 200])
def test_the_error_names_the_protein_that_does_not_fit(representation, records, pool, window_residues):
    """The longest protein is in a micro-batch with others at first, or in windows."""
    job = replace(representation, window_residues=window_residues).proteins()
    limited = replace(job, compute=with_memory_for(150, OUT_OF_MEMORY["cuda"], job.compute))
    engine = Engine(pool=pool, micro_batch_tokens=1 << 14)

    with pytest.raises(TooLongForMemoryError) as caught:
        vectors_of(engine, limited, records)

    (named,) = [record for record in records if record.id == caught.value.record_id]
    assert len(named.sequence) > 148
    assert str(caught.value).startswith(f"{named.id!r}: a single window of ")


def test_other_errors_are_not_mistaken_for_lack_of_memory(records, pool):
    attempts = []
    broken = with_memory_for(0, raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied")), attempts=attempts)

    with WorkerPool(1) as worker, pytest.raises(RuntimeError, match="mat1 and mat2"):
        results_of(Engine(pool=worker), whole_proteins(at_once(broken)), records[:5])

    assert len(attempts) == 1


# Threads and errors


def test_results_are_computed_on_the_pools_threads_without_gradients(records):
    def describe(batch):
        state = threading.current_thread(), torch.is_inference_mode_enabled(), torch.get_num_threads()
        return [state] * len(batch.rows)

    with WorkerPool(2) as workers:
        states = results_of(Engine(pool=workers, micro_batch_tokens=1), whole_proteins(at_once(describe)), records)

    assert all(is_inference and num_threads == 1 for _, is_inference, num_threads in states)
    assert threading.current_thread() not in {thread for thread, *_ in states}


def test_an_error_while_computing_reaches_the_caller(records, pool):
    def fail(batch):
        if 5 in batch.rows:
            raise ZeroDivisionError("division by zero")
        return rows_of(batch)

    with pytest.raises(ZeroDivisionError, match="division by zero"):
        list(Engine(pool=pool, micro_batch_tokens=100).run(whole_proteins(at_once(fail)), records))

    assert results_of(Engine(pool=pool), ROWS, records[:3]) == [0, 1, 2]


def test_an_error_while_reading_reaches_the_caller_after_the_chunks_before_it(tmp_path, pool):
    (tmp_path / "bad.fasta").write_text(">a\nMKTAYI\n>b\nMKTA\n>c\nMK1\n")
    results = Engine(pool=pool, tokens_per_chunk=5).run(LENGTHS, read_fasta([tmp_path / "bad.fasta"]))

    assert [next(results)[1], next(results)[1]] == [6, 4]
    with pytest.raises(IllegalResidueError, match="record 'c'"):
        next(results)


@pytest.mark.parametrize("num_results", [0, 2])
def test_a_job_must_compute_one_part_per_crop(records, pool, num_results):
    with pytest.raises(ValueError, match="zip"):
        list(Engine(pool=pool).run(whole_proteins(at_once(lambda batch: [0] * num_results)), records[:1]))


# Streams of crops


def prefixes(compute=tokens_of):
    """Stream the beginnings of each protein as crops, as many as it has residues, without special tokens."""

    def crops(protein):
        return (encode(protein.sequence[: number + 1]) for number in range(len(protein.sequence)))

    return InferenceJob(
        crops=crops, compute=at_once(compute), join=lambda protein, parts: list(parts), is_streamed=True
    )


@pytest.mark.parametrize("micro_batch_tokens", [1, 100, 10_000])
@pytest.mark.parametrize("tokens_per_chunk", [1, 300, 10_000])
def test_streamed_crops_are_joined_in_their_order(pool, micro_batch_tokens, tokens_per_chunk):
    engine = Engine(pool=pool, micro_batch_tokens=micro_batch_tokens, tokens_per_chunk=tokens_per_chunk)
    proteins, sizes = [Protein("MKTAYIAKQR"), Protein("MKT"), Protein(""), Protein("MKTAYIAKQRW")], []

    results = list(engine.run(prefixes(), proteins, sizes.append))

    assert [protein for protein, _ in results] == proteins
    for protein, parts in results:
        assert [part.tolist() for part in parts] == [part.tolist() for part in prefixes().crops(protein)]
    assert sizes == [size for protein in proteins for size in range(1, len(protein.sequence) + 1)]
    assert sum(sizes) == sum(map(prefixes().num_tokens, proteins))


def test_streamed_items_without_crops_have_a_result(pool):
    proteins = [Protein("")] * 3

    assert list(Engine(pool=pool).run(prefixes(), proteins)) == [(protein, []) for protein in proteins]


def test_chunks_of_streamed_crops_begin_and_end_within_items():
    seen = []

    def note(batch):
        seen.append((batch.offsets.diff().tolist(), rows_of(batch)))
        return rows_of(batch)

    with WorkerPool(1) as worker:
        engine = Engine(pool=worker, micro_batch_tokens=100, tokens_per_chunk=5)
        list(engine.run(prefixes(note), [Protein("MKTA")] * 2))

    assert seen == [([1, 2, 3], [0, 0, 0]), ([4, 1], [0, 1]), ([2, 3], [1, 1]), ([4], [1])]


def test_identical_streamed_crops_are_computed_separately(pool):
    num_computed = []

    def count(batch):
        num_computed.append(len(batch.rows))
        return rows_of(batch)

    list(Engine(pool=pool).run(prefixes(count), [Protein("MKTAY")] * 9))

    assert sum(num_computed) == 9 * 5


def test_crops_of_a_very_long_item_are_not_held(pool):
    num_cut = itertools.count()

    def crops(item):
        for number in range(10_000):
            next(num_cut)
            yield encode("MKTAYIAKQR") if number < 9_990 else encode("MKT")

    def fail_at_the_first(batch):
        raise ZeroDivisionError

    job = InferenceJob(crops=crops, compute=fail_at_the_first, join=lambda item, parts: parts, is_streamed=True)

    with pytest.raises(ZeroDivisionError):
        list(Engine(pool=pool, micro_batch_tokens=100, tokens_per_chunk=200).run(job, ["item"]))
    assert next(num_cut) < 200


def test_a_micro_batch_of_streamed_crops_that_does_not_fit_is_halved(pool):
    protein = Protein("MKTAYIAKQR")

    ((_, parts),) = Engine(pool=pool).run(prefixes(with_memory_for(20, OUT_OF_MEMORY["python"])), [protein])

    assert [part.tolist() for part in parts] == [part.tolist() for part in prefixes().crops(protein)]
    with pytest.raises(TooLongForMemoryError):
        list(Engine(pool=pool).run(prefixes(with_memory_for(9, OUT_OF_MEMORY["python"])), [protein]))
