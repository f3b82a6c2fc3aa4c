"""Which model for what: by published results, the memory of the device, and its speed."""

import pytest

from protembed.config.common import DEFAULT_MODEL
from protembed.embedding import recommendation
from protembed.embedding.recommendation import recommend_models

GIGABYTE, FAST = 10**9, 1e15


@pytest.fixture
def on_computer(monkeypatch):
    """Recommend models for a computer with this memory in bytes, and this many operations a second."""

    def recommend(memory, rate):
        monkeypatch.setattr(recommendation, "total_memory", lambda device: memory)
        monkeypatch.setattr(recommendation, "measure_rate", lambda *arguments: rate)
        return {model.purpose: model for model in recommend_models().models}

    return recommend


def test_a_large_computer_gets_the_models_with_the_best_published_results(on_computer):
    models = on_computer(1000 * GIGABYTE, FAST)

    assert {purpose: model.model for purpose, model in models.items()} == {
        "trials without network": DEFAULT_MODEL,
        "vectors": "esm2_t33_650M",
        "ranking variants": "esm2_t33_650M",
        "contacts": "esm2_t36_3B",  # 15B is better, but has to be converted
        "vectors of 1,023 to 2,046 residues": "esmc_6b",
    }
    assert models["contacts"].reason == "52.7 % of the top L long-range ones"
    assert models["vectors"].reason == "perplexity 8.72"


def test_a_model_must_fit_into_memory(on_computer):
    models = on_computer(3 * GIGABYTE, FAST)

    assert models["contacts"].model == models["vectors"].model == "esm2_t30_150M"
    assert models["vectors of 1,023 to 2,046 residues"].model == "esmc_300m"
    assert all(model.memory_bytes <= 3 * GIGABYTE for model in models.values())


def test_a_model_must_embed_a_thousand_proteins_within_an_hour(on_computer):
    slow = on_computer(1000 * GIGABYTE, 1e10)

    assert slow["vectors"].model == "esm2_t12_35M"
    assert slow["vectors"].seconds < 3600
    assert "vectors of 1,023 to 2,046 residues" not in slow  # none is fast enough


def test_the_measured_speed_is_that_of_this_computer():
    found = recommend_models()

    assert found.models[0].model == DEFAULT_MODEL
    assert 0 < found.models[0].seconds < 3600
    assert found.num_threads >= 1
    assert found.precision in ("float32", "bfloat16")
