import shutil
from pathlib import Path

import pytest

from protembed.config.shared import DEFAULT_MODEL
from protembed.errors import InputNotFoundError
from protembed.model.catalog import PUBLISHED_MODELS, bundled_models, find_model


def test_a_model_directory_is_found(tiny_model):
    assert find_model(tiny_model) == tiny_model


def test_a_run_stands_for_its_finished_model(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "proteins.run" / "model")

    assert find_model(tmp_path / "proteins.run") == tmp_path / "proteins.run" / "model"


def test_an_unfinished_run_is_told_apart(tmp_path):
    (tmp_path / "run.json").write_text("{}")

    with pytest.raises(InputNotFoundError, match="no finished model yet; repeat its command"):
        find_model(tmp_path)


def test_a_bundled_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert bundled_models()
    for directory in bundled_models():
        assert find_model(Path(directory.name)) == directory


def test_no_name_means_the_default_model_wherever_the_command_runs(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / DEFAULT_MODEL)

    assert find_model(None) in bundled_models()
    assert find_model(None).name == DEFAULT_MODEL
    assert find_model(Path(DEFAULT_MODEL)) == Path(DEFAULT_MODEL)  # who names a directory that is there, means it
    (tmp_path / DEFAULT_MODEL / "config.json").unlink()
    with pytest.raises(InputNotFoundError, match="there is no config.json in it"):
        find_model(Path(DEFAULT_MODEL))


def test_a_missing_model_comes_with_advice_how_to_get_one(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in (tmp_path, *(tmp_path / part for part in ("missing", "file", "link", "x" * 300))):
        with pytest.raises(InputNotFoundError, match="--model") as caught:
            find_model(name)
        assert caught.value.exit_status == 66


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.name)
def test_a_published_model_comes_with_the_command_that_fetches_it(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for name in (model.name, model.hub_id, model.hub_id.upper(), f"{model.name}_UR50D"):
        with pytest.raises(InputNotFoundError) as caught:
            find_model(Path(name))
        assert model.how_to_get in str(caught.value)


def test_published_names_are_the_hubs():
    assert PUBLISHED_MODELS[1].hub_id == "facebook/esm2_t12_35M_UR50D"
    assert PUBLISHED_MODELS[1].how_to_get == (
        "hf download facebook/esm2_t12_35M_UR50D config.json model.safetensors --local-dir esm2_t12_35M"
    )
    assert "save_pretrained" in PUBLISHED_MODELS[-1].how_to_get  # pickled weights are of no use
