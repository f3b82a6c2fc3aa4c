import re
from pathlib import Path

import pytest

from protembed.cli.messages import model_lines
from protembed.config.common import DEFAULT_MODEL
from protembed.config.model_sizes import SIZES
from protembed.model.catalog import list_models, locate_model
from protembed.model.checkpoint import load_checkpoint
from protembed.model.metadata import read_metadata
from protembed.model.published import PUBLISHED_MODELS


def test_the_bundled_models_come_first_and_one_of_them_is_the_default():
    models = list_models()

    assert [model.name for model in models if model.is_default] == [DEFAULT_MODEL]
    assert [model.is_bundled for model in models] == sorted((model.is_bundled for model in models), reverse=True)
    assert [model.name for model in models if not model.is_bundled] == [model.name for model in PUBLISHED_MODELS]


def test_the_default_model_is_listed_with_its_size_and_metrics():
    (default,) = (model for model in list_models() if model.is_default)
    directory = locate_model().directory
    checkpoint = load_checkpoint(directory)

    assert default.num_parameters == checkpoint.num_parameters
    assert default.num_bytes == (directory / "model.safetensors").stat().st_size
    assert default.dim == checkpoint.encoder.shape.dim
    assert f"perplexity {read_metadata(directory).metrics['valid_perplexity']:.1f}" in default.expectation
    assert default.directory == directory
    assert default.how_to_get == ""


def test_published_models_are_listed_with_size_metrics_and_how_to_get_them():
    by_name = {model.name: model for model in list_models()}
    model = by_name["esm2_t12_35M"]

    assert (model.num_parameters, model.dim) == (SIZES["t12_35M"].num_parameters, 480)
    assert model.num_bytes == 4 * model.num_parameters
    assert all(part in model.expectation for part in ("perplexity 11.65", "28.8 %", "published"))
    assert model.how_to_get == "--model esm2_t12_35M"
    assert "save_pretrained" in by_name["esm2_t48_15B"].how_to_get
    assert (model.hub_id, model.licence, model.window_residues) == ("facebook/esm2_t12_35M_UR50D", "MIT", 1022)
    assert (model.perplexity, model.contact_precision, model.variant_spearman) == (11.65, 0.288, 0.321)


def test_the_whole_family_is_listed():
    names = [model.name for model in list_models()]

    for name in ("esm2_t36_3B", "esmc_300m", "esmc_600m", "esmc_6b", "esm1b_t33_650M", "esm1v_t33_650M_5"):
        assert name in names
    by_name = {model.name: model for model in list_models()}
    assert by_name["esmc_300m"].window_residues == 2046 and not by_name["esmc_300m"].has_learned_positions
    assert by_name["esm1v_t33_650M_1"].has_learned_positions
    assert by_name["esmc_300m"].expectation == "no metrics available"


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.name)
def test_the_number_of_parameters_is_about_that_of_the_name(model):
    named = re.search(r"_(\d+)([mb])(_\d)?$", model.name.lower())
    number = float(named[1]) * (1e9 if named[2] == "b" else 1e6)

    assert number == pytest.approx(model.shape.num_parameters, rel=0.12)


def test_memory_for_embedding_is_the_weights_and_a_small_part_more():
    for model in list_models():
        assert model.float32_bytes == 2 * model.bfloat16_bytes
        assert 1 < model.float32_bytes / (4 * model.num_parameters) < (2 if model.num_parameters < 1e8 else 1.1)


def test_the_memory_table_of_the_documentation_is_what_the_code_computes():
    lines = list(model_lines(list_models(), 80))
    table = "\n".join(lines[: lines.index("")])

    assert table in (Path(__file__).parents[2] / "docs" / "models.md").read_text()
