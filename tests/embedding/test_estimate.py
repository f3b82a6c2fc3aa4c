from types import SimpleNamespace

import pytest
import torch

from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.data.alphabet import encode
from protembed.data.batching import make_crop
from protembed.data.fasta import Record, read_fasta
from protembed.data.windows import window_spans
from protembed.embedding import estimate
from protembed.embedding.estimate import Workload
from protembed.inference.engine import Engine, InferenceJob, whole_proteins
from protembed.model.architectures import new_encoder

SHAPE = ESM2Shape(num_layers=2, dim=32, num_heads=4)
# The feed-forward part of ESM-C is rounded up: at this width it has three times the weights of that of ESM-2.
FAMILY = {"ESM-2": SHAPE, "ESM-C": ESMCShape(num_layers=2, dim=32, num_heads=4)}


def lengths_of(batch):
    yield from ()
    return (batch.offsets.diff() - 2).tolist()


def windows_of(record):
    residues = encode(record.sequence)
    return [make_crop(residues, *span) for span in window_spans(len(residues), 80)]


WHOLE = whole_proteins(lengths_of)
WINDOWED = InferenceJob(crops=windows_of, compute=lengths_of, join=lambda record, parts: parts)


@pytest.fixture(scope="module")
def records(proteins_fasta):
    return list(read_fasta([proteins_fasta]))


def workload_of(records, computation):
    workload = Workload(SHAPE)
    workload.count(iter(records), computation)
    return workload


def record_of(sequence):
    return Record(row=0, id="p", description="p", sequence=sequence, path="x.fasta", line=1)


@pytest.fixture
def clock(monkeypatch):
    """Simulate a clock by which computing a sample takes two seconds."""
    readings = iter([0.0, 0.0, 2.0, 2.0])
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: next(readings)))


def test_proteins_residues_and_windows_are_workload_of(records):
    lengths = [len(record.sequence) for record in records]
    workload = workload_of(records, WINDOWED)

    assert workload.num_proteins == len(records)
    assert workload.num_residues == sum(lengths)
    assert workload.longest == 383
    assert workload.num_windows == sum(len(window_spans(length, 80)) for length in lengths)
    assert workload.num_windowed == sum(length > 80 for length in lengths)


def test_without_windows_each_protein_counts_as_one_window(records):
    workload = workload_of(records, WHOLE)

    assert (workload.num_windows, workload.num_windowed) == (len(records), 0)


def test_operations_equal_those_of_the_matrix_products_counted_by_hand():
    workload = workload_of([record_of("M" * 10)], WHOLE)

    # For 12 tokens: four products with 32² weights in attention and eight in the feed-forward network; attention
    # scores and their products with the values, 12² · 32 each.
    assert workload.operations == 2 * (2 * 12 * (4 + 8) * 32**2 + 2 * 2 * 12**2 * 32)


@pytest.mark.parametrize("shape", FAMILY.values(), ids=FAMILY)
def test_operations_are_two_for_each_weight_of_the_matrices_and_token(shape):
    workload = Workload(shape)
    workload.count([record_of("M" * 10)], WHOLE)

    with torch.device("meta"):
        layers = new_encoder(shape).layers
    num_weights = sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2)
    assert workload.operations == 2 * 12 * num_weights + shape.num_layers * 2 * 2 * 12**2 * shape.dim


def test_windows_reduce_the_operations_of_very_long_proteins():
    long = [record_of("M" * 5000)]

    assert workload_of(long, WINDOWED).operations < workload_of(long, WHOLE).operations


def test_the_sample_is_small_and_independent_of_the_order(records):
    few, many, reversed_many = (
        workload_of(proteins, WHOLE) for proteins in (records[:3], records * 4, records[::-1] * 4)
    )

    assert {record.id for record in few.sample} == {record.id for record in records[:3]}
    assert len(many.sample) == 64
    assert {record.sequence for record in many.sample} == {record.sequence for record in reversed_many.sample}


def test_the_estimated_time_is_proportional_to_the_operations(records, pool, clock):
    workload = workload_of(records * 4, WHOLE)
    fraction = sum(workload.operations_of(record, WHOLE) for record in workload.sample) / workload.operations

    assert 0.2 < fraction < 0.8
    assert workload.seconds(Engine(pool=pool), WHOLE) == pytest.approx(2 / fraction)


def test_very_long_proteins_are_cut_off_in_the_sample(pool, clock):
    workload = workload_of([record_of("MKTAYIAKQR" * 500)], WINDOWED)
    (sampled,) = workload.sample

    assert len(sampled.sequence) == 600
    assert workload.longest == 5000
    expected = 2 * workload.operations / workload.operations_of(sampled, WINDOWED)
    assert workload.seconds(Engine(pool=pool), WINDOWED) == pytest.approx(expected)


def test_the_estimated_time_of_no_proteins_is_zero(pool):
    assert workload_of([], WHOLE).seconds(Engine(pool=pool), WHOLE) == 0
