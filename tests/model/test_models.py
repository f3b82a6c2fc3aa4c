from protembed.config.common import DEFAULT_MODEL
from protembed.config.model_sizes import SIZES
from protembed.model.catalog import PUBLISHED_MODELS, list_models, locate_model
from protembed.model.checkpoint import load_checkpoint
from protembed.model.metadata import read_metadata


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
