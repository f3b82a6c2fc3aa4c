import json
import re
import shutil
from pathlib import Path

import pytest

from protembed.config.common import DEFAULT_MODEL
from protembed.errors import ConfigError, InputNotFoundError, ModelFormatError
from protembed.model.catalog import bundled_models, hub_name, locate_model, model_name
from protembed.model.checkpoint import load_checkpoint
from protembed.model.published import PUBLISHED_MODELS
from protembed.model.unsupported import UNSUPPORTED_MODELS


def test_a_model_directory_is_found(tiny_model):
    assert locate_model(tiny_model).directory == tiny_model


def test_a_run_directory_is_resolved_to_its_finished_model(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "proteins.run" / "model")

    assert locate_model(tmp_path / "proteins.run").directory == tmp_path / "proteins.run" / "model"


def test_an_unfinished_run_is_an_error_with_advice_to_resume(tmp_path):
    (tmp_path / "run.json").write_text("{}")

    with pytest.raises(InputNotFoundError, match="no finished model yet; repeat its command"):
        locate_model(tmp_path)


def test_a_bundled_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert bundled_models()
    for directory in bundled_models():
        assert locate_model(Path(directory.name)).directory == directory


def test_without_a_name_the_default_model_is_used_in_any_folder(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / DEFAULT_MODEL)

    assert locate_model().directory in bundled_models()
    assert locate_model().directory.name == DEFAULT_MODEL
    assert locate_model(Path(DEFAULT_MODEL)).directory == Path(DEFAULT_MODEL)  # an existing directory takes precedence
    (tmp_path / DEFAULT_MODEL / "config.json").unlink()
    with pytest.raises(InputNotFoundError, match="there is no config.json in it"):
        locate_model(Path(DEFAULT_MODEL))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_checkpoint_is_loaded_by_every_name_of_a_model(hub, tiny_model, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    hub.publish("facebook/esm2_t12_35M_UR50D", tiny_model)
    hub.publish("lab/tiny", tiny_model)
    shutil.copytree(tiny_model, tmp_path / "proteins.run" / "model")
    names = (tiny_model, "proteins.run", "proteins.run/model", "lab/tiny", "esm2_t12_35M")

    assert {load_checkpoint(kind(name)).sha256() for name in names} == {locate_model(tiny_model).sha256()}
    assert load_checkpoint(kind(DEFAULT_MODEL)).sha256() == load_checkpoint().sha256() == load_checkpoint(None).sha256()


def test_a_checkpoint_that_no_hub_name_names_is_loaded_without_the_network(hub, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    for name in (None, DEFAULT_MODEL, tiny_model):
        load_checkpoint(name)
    for name in ("missing", "runs/mistyped", "./lab/tiny", tmp_path / "runs", "a b/c"):
        with pytest.raises(InputNotFoundError, match="name a model directory"):
            load_checkpoint(name)

    assert hub.requests == []


def test_a_name_of_another_type_is_an_error_of_the_argument():
    with pytest.raises(ConfigError, match="model is 6, but a path is expected"):
        load_checkpoint(6)


def test_a_missing_model_is_an_error_with_advice_how_to_get_one(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in (tmp_path, *(tmp_path / part for part in ("missing", "file", "link", "x" * 300))):
        with pytest.raises(InputNotFoundError, match="name a model directory, a run of") as caught:
            locate_model(name)
        assert caught.value.exit_status == 66


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("esmc", "esmc_300m, esmc_600m, esmc_6b"),
        ("ESM-C", "esmc_300m, esmc_600m, esmc_6b"),
        ("esm1b", "esm1b_t33_650M"),
        ("esm1v_t33_650M", ", ".join(f"esm1v_t33_650M_{number}" for number in range(1, 6))),
        ("esm2-15b", "esm2_t48_15B"),
    ],
)
def test_an_incomplete_name_is_an_error_with_the_models_that_it_may_mean(tmp_path, monkeypatch, name, similar):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputNotFoundError, match=f"name one of {similar}$"):
        locate_model(name)


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.name)
def test_every_form_of_a_published_name_is_resolved_to_its_hub_id(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    owner, _, repository = model.hub_id.partition("/")
    for name in (model.name, model.hub_id, model.hub_id.upper(), repository, f"{owner}/{model.name}"):
        assert hub_name(Path(name)) == model_name(Path(name)) == model.pinned_id
        assert hub_name(Path(f"{name}@v1")) == f"{model.hub_id}@v1"


def test_the_commit_of_esm2_3b_that_holds_safetensors_is_used_unless_another_is_named():
    commit = "93b119485aaf2649e7de5de85eab3bcf71256552"

    assert hub_name("esm2_t36_3B") == hub_name("facebook/esm2_t36_3B_UR50D") == f"facebook/esm2_t36_3B_UR50D@{commit}"
    assert hub_name("esm2_t36_3B@main") == "facebook/esm2_t36_3B_UR50D@main"


def test_names_of_esmc_are_accepted_with_hyphens_and_underscores():
    for name in ("esmc_300m", "ESMC-300M", "esmc-300m-hf", "biohub/esmc-300m", "biohub/ESMC-300M-hf"):
        assert hub_name(name) == "biohub/ESMC-300M-hf"


@pytest.mark.parametrize(
    ("name", "what", "use"),
    [
        ("biohub/esm3-sm-open-v1", "ESM-3, which generates", "-m esmc_300m"),
        ("esm3_sm_open_v1", "ESM-3, which generates", "-m esmc_300m"),
        ("EvolutionaryScale/esmc-300m-2024-12", "ESM-C as the package `esm` published it", "-m esmc_300m,"),
        ("biohub/esmc-600m-2024-12", "ESM-C as the package `esm` published it", "-m esmc_600m,"),
        ("westlake-repl/SaProt_650M_AF2", "SaProt", "-m esm2_t33_650M"),
        ("Rostlab/prot_t5_xl_half_uniref50-enc@main", "ProtT5", "-m esmc_600m"),
        ("Rostlab/ProstT5", "ProstT5", "-m esmc_600m"),
        ("ElnaggarLab/ankh-base", "Ankh", "-m esmc_600m"),
        ("facebook/esmfold_v1", "ESMFold,", "-m esm2_t36_3B"),
        ("biohub/ESMFold2-Fast", "ESMFold2", "-m esmc_6b"),
        ("esm_msa1b_t12_100M_UR50S", "ESM-MSA", "-m esm2_t33_650M"),
        ("esm_if1_gvp4_t16_142M_UR50", "ESM-IF", "-m esm2_t33_650M"),
    ],
)
def test_a_model_that_is_not_read_is_rejected_by_name_with_what_to_use_instead(
    hub, tmp_path, monkeypatch, name, what, use
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelFormatError, match=rf"this is {re.escape(what)}.*use {re.escape(use)}") as caught:
        locate_model(name)

    assert str(caught.value).startswith(f"{name}: ")
    assert caught.value.exit_status == 65
    assert hub.requests == []


def test_what_is_named_instead_is_the_name_of_a_published_model():
    names = {model.name for model in PUBLISHED_MODELS}

    for model in UNSUPPORTED_MODELS:
        used = re.findall(r"\besm\w+_\w+", model.use)
        assert set(used) <= names and (used or "{esmc}" in model.use)


def test_models_of_others_with_similar_names_are_not_rejected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for name in ("lab/esm2-after-esm3", "lab/my_ankh", "lab/esm30", "lab/esmc_300m_2025"):
        assert hub_name(name) == name


@pytest.mark.parametrize(
    ("file", "found", "advice"),
    [
        ("esm2_t33_650M_UR50D.pt", "pickled weights", "use -m esm2_t33_650M_UR50D, the same model on the hub"),
        ("esm1v_t33_650M_UR90S_3.pt", "pickled weights", "use -m esm1v_t33_650M_UR90S_3, the same"),
        ("data/weights/esmc_600m_2024_12_v0.pth", "ESM-C as the package", "use -m esmc_600m,"),
        ("data/weights/esm3_sm_open_v1.pth", "ESM-3", "use -m esmc_300m"),
        ("best.pt", "pickled weights", "name the model \\(`protembed models`\\), or pass a directory"),
    ],
)
def test_pickled_weights_on_disk_are_rejected_alone_and_in_a_directory(tmp_path, file, found, advice):
    path = tmp_path / "model" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x80\x02")

    for name in (path, tmp_path / "model"):
        with pytest.raises(ModelFormatError, match=f"{found}.*{advice}") as caught:
            locate_model(name)
        assert str(caught.value).startswith(f"{path}: ")
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelFormatError, match=f"{found}.*{advice}"):
        load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "t5"}, "a T5 model, as are ProtT5"),
        ({"model_type": "esm", "vocab_size": 446}, "SaProt"),
        ({"model_type": "esm", "is_folding_model": True}, "ESMFold"),
        ({"model_type": "esm3"}, "ESM-3"),
    ],
)
def test_a_directory_of_a_model_that_is_not_read_is_rejected_by_its_config(tmp_path, config, what):
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelFormatError, match=f"this is {what}.*use -m "):
        load_checkpoint(tmp_path)


def test_names_on_disk_and_of_bundled_models_are_no_hub_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lab/tiny", "esm2_t6_8M", "facebook"):
        (tmp_path / name).mkdir(parents=True)

    names = ("lab/tiny", "lab/mistyped", "esm2_t6_8M", "facebook/esm2_t6_8M_UR50D", "missing", "../lab/tiny")
    for name in (*names, str(tmp_path / "lab"), DEFAULT_MODEL):
        assert hub_name(Path(name)) is None
    assert hub_name(None) is None
    assert hub_name(Path("owner/model@v1")) == "owner/model@v1"


def test_a_new_model_records_the_folder_of_its_model_or_its_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "esm2_t6_8M").mkdir()

    assert model_name(None) == model_name(Path(DEFAULT_MODEL)) == DEFAULT_MODEL
    assert model_name(tmp_path / "secret" / "tiny") == "tiny"
    assert model_name(Path("esm2_t6_8M")) == "esm2_t6_8M"
    assert model_name(Path("esm2_t12_35M")) == "facebook/esm2_t12_35M_UR50D"


def test_a_published_model_is_found_on_the_hub_with_its_commit(hub, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commit = hub.publish("facebook/esm2_t12_35M_UR50D", tiny_model)

    located = locate_model(Path("esm2_t12_35M"))

    assert (located.name, located.revision) == ("facebook/esm2_t12_35M_UR50D", commit)
    assert load_checkpoint(located.directory).sha256() == load_checkpoint(tiny_model).sha256()
    assert locate_model(Path("esm2_t12_35M")).directory == located.directory


def test_published_models_have_the_ids_of_the_hub():
    assert PUBLISHED_MODELS[1].hub_id == "facebook/esm2_t12_35M_UR50D"
    assert PUBLISHED_MODELS[1].how_to_get == "--model esm2_t12_35M"
    (largest,) = (model for model in PUBLISHED_MODELS if model.name == "esm2_t48_15B")
    assert "save_pretrained('esm2_t48_15B')" in largest.how_to_get  # pickled weights are not read
