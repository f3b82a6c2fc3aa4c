import pytest
import torch

from protembed.attention.estimate import ProteinLength, ResourceEstimate
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.model_sizes import SIZES
from protembed.device import WorkerPool
from protembed.errors import InsufficientResourcesError
from protembed.inference.engine import Engine

CPU = torch.device("cpu")


def make_footprint(*lengths, num_kept=0, num_pairs=0, save_maps=120, predicts=False, **config):
    footprint = ResourceEstimate(SIZES["t6_8M"], AttentionConfig(**config), save_maps, predicts)
    for row, length in enumerate(lengths):
        kept = length if row < num_kept else None
        footprint.add(ProteinLength(id=f"p{row}", num_residues=length), region=kept, num_pairs=num_pairs)
    return footprint


@pytest.fixture
def room(monkeypatch):
    """Let the machine have so much memory, or disk, of which the process holds a tenth of a gigabyte already."""

    def have(*, memory=64_000_000_000, disk=10**15):
        monkeypatch.setattr("protembed.attention.estimate.total_memory", lambda device: memory)
        monkeypatch.setattr("protembed.attention.estimate.peak_memory", lambda device: 100_000_000)
        monkeypatch.setattr("protembed.attention.estimate.free_disk", lambda path: disk)

    return have


def engine_of(num_workers):
    return Engine(pool=WorkerPool(num_workers))


def test_a_long_protein_takes_its_layer_twice_over():
    # 20 heads of 3,002² float32, and as much for their softmax; the rest is small.
    assert make_footprint(3000).layer_bytes(1, 1024) == pytest.approx(2 * 20 * 3002**2 * 4, rel=0.1)


def test_the_longest_proteins_are_computed_side_by_side():
    footprint = make_footprint(2000, 100, 2000, 2000)

    assert footprint.layer_bytes(2, 1024) == 2 * footprint.layer_bytes(1, 1024)
    assert footprint.layer_bytes(9, 1024) == pytest.approx(3 * footprint.layer_bytes(1, 1024), rel=0.01)


def test_features_of_pairs_are_held_of_all_heads():
    assert make_footprint(300, num_pairs=40_000).features_bytes == 120 * 40_000 * 4
    grown = make_footprint(300, num_pairs=400_000).memory_bytes(1, 1024)
    assert grown > make_footprint(300).memory_bytes(1, 1024) + 120 * 400_000 * 4


@pytest.mark.parametrize(("dtype", "num_bytes"), [("float32", 4), ("float16", 2)])
def test_maps_on_disk_are_counted_by_their_shape_and_type(dtype, num_bytes):
    footprint = make_footprint(1000, 800, 600, num_kept=2, dtype=dtype)

    assert footprint.disk_bytes == pytest.approx(120 * (1000**2 + 800**2) * num_bytes, rel=0.02)
    assert make_footprint(1000).disk_bytes == 0


def test_what_fits_is_not_refused(room):
    room()
    footprint = make_footprint(1500, num_kept=1)

    footprint.check_memory(engine_of(2), CPU)
    footprint.check_disk(".")


def test_a_protein_that_is_too_long_is_named_with_what_helps(room):
    room(memory=2_000_000_000)

    with pytest.raises(InsufficientResourcesError) as caught:
        make_footprint(300, 6000).check_memory(engine_of(1), CPU)

    assert str(caught.value).startswith("attention maps need about 6.")
    assert "GB of memory, most of it for 'p1' of 6,000 residues, but 2.0 GB are available; leave it out" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("lengths", "num_pairs", "advice"),
    [((3000, 3000), 0, "pass --threads 1"), ((300,) * 40, 200_000, "give fewer --structures or --sites")],
)
def test_the_advice_is_what_would_suffice(room, lengths, num_pairs, advice):
    room(memory=2_000_000_000)

    with pytest.raises(InsufficientResourcesError, match=advice):
        make_footprint(*lengths, num_pairs=num_pairs).check_memory(engine_of(2), CPU)


def test_a_gpu_has_to_hold_a_layer(room, monkeypatch):
    room()
    memory = {"cpu": 64_000_000_000, "cuda": 3_000_000_000}
    monkeypatch.setattr("protembed.attention.estimate.total_memory", lambda device: memory[device.type])
    footprint = make_footprint(6000)

    footprint.check_memory(engine_of(1), CPU)
    with pytest.raises(InsufficientResourcesError, match="GB of GPU memory"):
        footprint.check_memory(engine_of(1), torch.device("cuda"))


def test_a_disk_without_room_is_told_before_it_is_full(room, tmp_path):
    room(disk=1_000_000_000)

    with pytest.raises(
        InsufficientResourcesError, match=r"'p1' of 4,000 residues, but 1\.0 GB are available; keep less of them by"
    ):
        make_footprint(300, 4000, 5000, num_kept=2).check_disk(tmp_path)
