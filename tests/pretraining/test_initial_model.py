import pytest
import torch

from protembed.config.model_sizes import SIZES
from protembed.pretraining import initial_model
from protembed.pretraining.initial_model import default_training_tokens

CUDA, GB = torch.device("cuda"), 10**9


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
