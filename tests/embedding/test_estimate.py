from types import SimpleNamespace

import pytest

from protembed.config.model_sizes import EncoderShape
from protembed.data.fasta import Record, read_fasta
from protembed.data.windows import window_spans
from protembed.embedding import estimate
from protembed.embedding.estimate import Workload
from protembed.inference.engine import Engine, InferenceJob, WindowedJob

SHAPE = EncoderShape(num_layers=2, dim=32, num_heads=4)


def lengths_of(batch):
    return (batch.offsets.diff() - 2).tolist()


WHOLE = InferenceJob(compute=lengths_of)
WINDOWED = InferenceJob(
    compute=lengths_of,
    windowed=WindowedJob(window_residues=80, compute=lengths_of, merge=lambda windows, spans: windows),
)


@pytest.fixture(scope="module")
def records(proteins_fasta):
    return list(read_fasta([proteins_fasta]))


def counted(records, computation):
    workload = Workload(SHAPE)
    workload.count(iter(records), computation)
    return workload


def record_of(sequence):
    return Record(row=0, id="p", description="p", sequence=sequence, path="x.fasta", line=1)


@pytest.fixture
def clock(monkeypatch):
    """Let two seconds pass whenever a sample has been computed."""
    readings = iter([0.0, 0.0, 2.0, 2.0])
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: next(readings)))


def test_proteins_residues_and_windows_are_counted(records):
    lengths = [len(record.sequence) for record in records]
    workload = counted(records, WINDOWED)

    assert workload.num_proteins == len(records)
    assert workload.num_residues == sum(lengths)
    assert workload.longest == 383
    assert workload.num_windows == sum(len(window_spans(length, 80)) for length in lengths)
    assert workload.num_windowed == sum(length > 80 for length in lengths)


def test_nothing_is_windowed_where_proteins_are_whole(records):
    workload = counted(records, WHOLE)

    assert (workload.num_windows, workload.num_windowed) == (len(records), 0)


def test_operations_are_those_of_the_matrix_products_by_hand():
    workload = counted([record_of("M" * 10)], WHOLE)

    # Of 12 tokens: four maps of 32² in attention, eight in feed-forward; scores and mixing, 12² · 32 each.
    assert workload.operations == 2 * (2 * 12 * (4 + 8) * 32**2 + 2 * 2 * 12**2 * 32)


def test_windows_save_operations_where_attention_is_most_of_them():
    long = [record_of("M" * 5000)]

    assert counted(long, WINDOWED).operations < counted(long, WHOLE).operations


def test_the_sample_is_small_and_chosen_by_sequence(records):
    few, many, reversed_many = (counted(some, WHOLE) for some in (records[:3], records * 4, records[::-1] * 4))

    assert {record.id for record in few.sample} == {record.id for record in records[:3]}
    assert len(many.sample) == 64
    assert {record.sequence for record in many.sample} == {record.sequence for record in reversed_many.sample}


def test_the_time_of_all_is_that_of_the_sample_by_its_share_of_operations(records, pool, clock):
    workload = counted(records * 4, WHOLE)
    share = sum(workload.operations_of(record, WHOLE) for record in workload.sample) / workload.operations

    assert 0.2 < share < 0.8
    assert workload.seconds(Engine(pool=pool), WHOLE) == pytest.approx(2 / share)


def test_very_long_proteins_are_sampled_by_their_beginning(pool, clock):
    workload = counted([record_of("MKTAYIAKQR" * 500)], WINDOWED)
    (sampled,) = workload.sample

    assert len(sampled.sequence) == 600
    assert workload.longest == 5000
    expected = 2 * workload.operations / workload.operations_of(sampled, WINDOWED)
    assert workload.seconds(Engine(pool=pool), WINDOWED) == pytest.approx(expected)


def test_no_protein_takes_no_time(pool):
    assert counted([], WHOLE).seconds(Engine(pool=pool), WHOLE) == 0
