import shutil

import pytest

from protembed.errors import InputNotFoundError
from protembed.model.catalog import find_model, open_model


def test_a_model_directory_is_found(tiny_model):
    assert find_model(tiny_model) == tiny_model


def test_a_run_stands_for_its_finished_model(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "proteins.run" / "model")

    assert find_model(tmp_path / "proteins.run") == tmp_path / "proteins.run" / "model"
    assert open_model(tmp_path / "proteins.run").directory == tmp_path / "proteins.run" / "model"


def test_an_unfinished_run_is_told_apart(tmp_path):
    (tmp_path / "run.json").write_text("{}")

    with pytest.raises(InputNotFoundError, match="no finished model yet; repeat its command"):
        find_model(tmp_path)


def test_a_missing_model_comes_with_advice_how_to_get_one(tmp_path):
    for name in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputNotFoundError, match="--model") as caught:
            find_model(name)
        assert caught.value.exit_status == 66
