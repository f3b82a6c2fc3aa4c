import pytest
import torch

from protembed.config.model_sizes import SIZES
from protembed.config.pretrain import PretrainConfig
from protembed.errors import ConfigError, NotEnoughMemoryError
from protembed.model.checkpoint import load_checkpoint, save_checkpoint
from protembed.pretraining import initial_model
from protembed.pretraining.initial_model import decide_sharding, default_training_tokens

CPU, CUDA, GB = torch.device("cpu"), torch.device("cuda"), 10**9


@pytest.fixture
def decide(monkeypatch):
    """Decide about a size on a number of devices, with a memory in gigabytes each."""

    def make(size, num_processes, memory_gb, shard="auto", device=CUDA):
        monkeypatch.setenv("WORLD_SIZE", str(num_processes))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_processes))
        monkeypatch.setattr(initial_model, "total_memory", lambda device: memory_gb * GB)
        return decide_sharding(PretrainConfig(size=size, shard=shard), device)

    return make


@pytest.mark.parametrize(
    ("size", "num_processes", "memory_gb", "is_sharded"),
    [
        ("t33_650M", 8, 80, False),
        ("t36_3B", 8, 80, True),  # 45 GB of weights, gradients and states, and 50 GB for 8,192 tokens
        ("t36_3B", 8, 141, False),
        ("t36_3B", 1, 141, False),
        ("t48_15B", 8, 80, True),  # 242 GB for one process, 28 GB for one of eight
    ],
)
def test_weights_are_sharded_where_they_do_not_fit_one_gpu(decide, size, num_processes, memory_gb, is_sharded):
    assert decide(size, num_processes, memory_gb) == is_sharded


def test_sharding_is_decided_by_the_option_where_it_says_so(decide):
    assert decide("t6_8M", 2, 80, "always")
    assert not decide("t36_3B", 8, 80, "never")


def test_processes_on_one_cpu_share_its_memory(decide):
    # 10.4 GB for each of two processes that hold all weights.
    assert not decide("t33_650M", 2, 22, device=CPU)
    assert decide("t33_650M", 2, 20, device=CPU)


def test_sharding_always_needs_several_processes(decide):
    with pytest.raises(ConfigError, match="shard is 'always', but there is only one process: start several"):
        decide("t6_8M", 1, 80, "always")


@pytest.mark.parametrize(
    ("num_processes", "shard", "needed_gb", "advice"),
    [
        (1, "auto", 242, "start a process for each of several devices with torchrun"),
        (8, "never", 242, "leave `shard` at auto"),
        (2, "auto", 96, "start more processes"),
    ],
)
def test_a_model_too_large_for_the_devices_is_refused_with_what_they_would_need(
    decide, num_processes, shard, needed_gb, advice
):
    with pytest.raises(NotEnoughMemoryError, match=advice) as caught:
        decide("t48_15B", num_processes, 80, shard)

    assert caught.value.needed == pytest.approx(needed_gb * GB, rel=0.01)


def test_a_sharded_gpu_has_room_for_more_tokens_because_layers_are_recomputed(monkeypatch):
    monkeypatch.setattr(initial_model, "free_gpu_memory", lambda device: 72 * GB)

    whole, sharded = (default_training_tokens(SIZES["t36_3B"], CUDA, num_shards) for num_shards in (1, 8))

    assert whole == 8_192
    assert sharded > 30_000


@pytest.mark.parametrize(
    ("size", "free_gb", "low", "high"),
    [
        ("t6_8M", 79, 65_536, 65_536),  # the most, which occupies a GPU
        ("t12_35M", 23, 38_000, 40_000),
        ("t30_150M", 79, 46_000, 48_000),
        ("t33_650M", 77, 18_500, 20_000),
        ("t33_650M", 20, 8_192, 8_192),  # the least, whether it fits or not
        ("t36_3B", 30, 8_192, 8_192),
    ],
)
def test_tokens_of_a_micro_batch_on_a_gpu_follow_its_free_memory(size, free_gb, low, high, monkeypatch):
    monkeypatch.setattr(initial_model, "free_gpu_memory", lambda device: free_gb * GB)

    assert low <= default_training_tokens(SIZES[size], CUDA) <= high


@pytest.mark.parametrize(
    ("size", "num_tokens", "peak_gb"),
    [("t6_8M", 65_536, 10.4), ("t12_35M", 16_384, 5.6), ("t30_150M", 16_384, 15.5), ("t33_650M", 16_384, 41.0)],
)
def test_the_memory_that_trainings_took_on_an_h100_would_have_sufficed(size, num_tokens, peak_gb, monkeypatch):
    shape = SIZES[size]
    of_weights = 4 * shape.num_parameters
    monkeypatch.setattr(initial_model, "free_gpu_memory", lambda device: peak_gb * GB - of_weights)

    assert default_training_tokens(shape, CUDA) < num_tokens


def test_a_thousand_tokens_are_a_micro_batch_on_a_cpu():
    assert default_training_tokens(SIZES["t33_650M"], torch.device("cpu")) == 1024


def test_a_contact_head_is_dropped_because_it_was_fitted_to_other_attention(tiny_model, tmp_path):
    fitted = load_checkpoint(tiny_model)
    fitted.contact_head.weight.fill_(1.0)
    save_checkpoint(fitted, tmp_path / "fitted")

    started = initial_model.initial_model(PretrainConfig(init_from=tmp_path / "fitted"), 64)

    assert load_checkpoint(tmp_path / "fitted").contact_head.is_fitted
    assert not started.contact_head.is_fitted
