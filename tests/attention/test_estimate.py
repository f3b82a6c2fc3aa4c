from dataclasses import replace

import numpy as np
import pytest
import torch

from protembed.attention.contacts import ResiduePairs
from protembed.attention.estimate import ResourceEstimate
from protembed.attention.maps import MapRequest
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.model_sizes import SIZES
from protembed.data.fasta import Record
from protembed.device import WorkerPool
from protembed.errors import InsufficientResourcesError
from protembed.inference.engine import Engine

CPU = torch.device("cpu")


def make_estimate(*lengths, num_displayed=0, num_pairs=0, num_maps=120, predicts_contacts=False, **config):
    records = [
        Record(row=row, id=f"p{row}", description="", sequence="ACDEFGHIKLMNPQ"[row % 14] * length, path="x", line=1)
        for row, length in enumerate(lengths)
    ]
    no_pairs = ResiduePairs.from_contact_map(np.zeros((0, 0), bool), np.zeros((0, 0), bool), "")
    pairs = replace(no_pairs, first=np.zeros(num_pairs, int)) if num_pairs else None
    return ResourceEstimate(
        shape=SIZES["t6_8M"],
        config=AttentionConfig(**config),
        num_maps=num_maps,
        predicts_contacts=predicts_contacts,
        lengths=lengths,
        longest=max(records, key=lambda record: len(record.sequence)),
        displayed=records[:num_displayed],
        requests={f"{row}": MapRequest(pairs=pairs) for row in range(len(lengths))}
        | {record.sequence: MapRequest(maps=True) for record in records[:num_displayed]},
    )


@pytest.fixture
def set_resources(monkeypatch):
    """Return a function that sets the memory and disk of the machine; the process already uses 0.1 GB of memory."""

    def patch(*, memory=64_000_000_000, disk=10**15):
        monkeypatch.setattr("protembed.attention.estimate.total_memory", lambda device: memory)
        monkeypatch.setattr("protembed.attention.estimate.peak_memory", lambda device: 100_000_000)
        monkeypatch.setattr("protembed.attention.estimate.free_disk", lambda path: disk)

    return patch


def make_engine(num_workers):
    return Engine(pool=WorkerPool(num_workers))


ENGINE = make_engine(1)


def test_long_protein_needs_two_layers_of_its_maps():
    # 20 heads of 3,002² float32 numbers, and as many for their softmax.
    assert make_estimate(3000).layer_bytes(ENGINE, 1) == 2 * 20 * 3002**2 * 4


def test_short_proteins_need_a_micro_batch_of_maps():
    assert make_estimate(100, 50).layer_bytes(ENGINE, 1) == 2 * 20 * 102 * ENGINE.micro_batch_tokens * 4


def test_memory_grows_with_the_workers_up_to_the_number_of_proteins():
    estimate = make_estimate(2000, 100, 2000, 2000)

    assert estimate.layer_bytes(ENGINE, 2) == 2 * estimate.layer_bytes(ENGINE, 1)
    assert estimate.layer_bytes(ENGINE, 9) == pytest.approx(3 * estimate.layer_bytes(ENGINE, 1), rel=0.01)


def test_features_of_pairs_count_for_all_heads():
    assert make_estimate(300, num_pairs=40_000).features_bytes == 120 * 40_000 * 4
    memory = make_estimate(300, num_pairs=400_000).memory_bytes(ENGINE)
    assert memory > make_estimate(300).memory_bytes(ENGINE) + 120 * 400_000 * 4


@pytest.mark.parametrize(("dtype", "num_bytes"), [("float32", 4), ("float16", 2)])
def test_disk_space_of_maps_depends_on_shape_and_dtype(dtype, num_bytes):
    estimate = make_estimate(1000, 800, 600, num_displayed=2, store_dtype=dtype)

    assert estimate.disk_bytes == pytest.approx(120 * (1000**2 + 800**2) * num_bytes, rel=0.04)
    assert make_estimate(1000).disk_bytes == 0


def test_inspection_that_fits_raises_nothing(set_resources):
    set_resources()
    estimate = make_estimate(1500, num_displayed=1)

    estimate.check_memory(make_engine(2), CPU)
    estimate.check_disk(".")


def test_error_names_a_protein_that_is_too_long_with_advice(set_resources):
    set_resources(memory=2_000_000_000)

    with pytest.raises(InsufficientResourcesError) as caught:
        make_estimate(300, 6000).check_memory(make_engine(1), CPU)

    assert str(caught.value).startswith("attention maps need about 6.")
    assert "GB of memory, most of it for 'p1' of 6,000 residues, but 2.0 GB are available; omit it" in str(caught.value)


@pytest.mark.parametrize(
    ("lengths", "num_pairs", "advice"),
    [((3000, 3000), 0, "pass `threads` 1"), ((300,) * 40, 200_000, "give fewer `structures` or `sites`")],
)
def test_advice_is_sufficient(set_resources, lengths, num_pairs, advice):
    set_resources(memory=2_000_000_000)

    with pytest.raises(InsufficientResourcesError, match=advice):
        make_estimate(*lengths, num_pairs=num_pairs).check_memory(make_engine(2), CPU)


def test_layer_that_exceeds_the_gpu_memory_raises_an_error(set_resources, monkeypatch):
    set_resources()
    memory = {"cpu": 64_000_000_000, "cuda": 3_000_000_000}
    monkeypatch.setattr("protembed.attention.estimate.total_memory", lambda device: memory[device.type])
    estimate = make_estimate(6000)

    estimate.check_memory(make_engine(1), CPU)
    with pytest.raises(InsufficientResourcesError, match="GB of GPU memory"):
        estimate.check_memory(make_engine(1), torch.device("cuda"))


def test_insufficient_disk_space_raises_an_error(set_resources, tmp_path):
    set_resources(disk=1_000_000_000)

    with pytest.raises(
        InsufficientResourcesError, match=r"'p1' of 4,000 residues, but 1\.0 GB are available; save fewer maps with"
    ):
        make_estimate(300, 4000, 5000, num_displayed=2).check_disk(tmp_path)
