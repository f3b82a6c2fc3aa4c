import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from typer.testing import CliRunner

from protembed.cli.app import app
from protembed.config.common import ModelConfig
from protembed.config.embed import EmbedConfig
from protembed.embedding.embed import embed_fasta
from protembed.errors import HubError, InputNotFoundError, ModelFormatError
from protembed.model.catalog import bundled_models, locate_model
from protembed.model.checkpoint import load_checkpoint
from protembed.model.hub import fetch_model

ESM2 = "facebook/esm2_t6_8M_UR50D"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def esm_directory(tiny_esm, tmp_path_factory):
    """What transformers wrote, and all else that the repositories of ESM-2 offer."""
    directory = tmp_path_factory.mktemp("repositories") / "tiny_esm"
    tiny_esm.save_pretrained(directory)
    (directory / "onnx").mkdir()
    for name in ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "onnx/model.safetensors"):
        (directory / name).write_bytes(bytes(100_000))
    for name in ("README.md", "merges.txt", "tokenizer_config.json", "onnx/config.json", "train.py"):
        (directory / name).write_text("{}")
    return directory


@pytest.fixture
def without_weights(esm_directory, tmp_path):
    """A repository of which only `pytorch_model.bin` can be had."""
    directory = tmp_path / "without_weights"
    shutil.copytree(esm_directory, directory)
    (directory / WEIGHTS).unlink()
    return directory


@pytest.fixture
def embed(tmp_path, proteins_fasta):
    """Embed with a model into `tmp_path / name`; return the rows and what is said of them."""

    def run(model, name="emb"):
        embed_fasta([proteins_fasta], ModelConfig(model=Path(model)), EmbedConfig(output=tmp_path / f"{name}.npy"))
        return np.load(tmp_path / f"{name}.npy"), json.loads((tmp_path / f"{name}.meta.json").read_text())

    return run


@pytest.fixture
def offline(monkeypatch):
    """Do what HF_HUB_OFFLINE=1 does."""
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def shell(hub, tmp_path, *arguments, **variables):
    """Run protembed as a user does, with the hub and its cache named in the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, "-m", "protembed", *map(str, arguments)]
    return subprocess.run(command, cwd=tmp_path, env=environment | variables, capture_output=True, text=True)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.promise(18)
def test_nothing_but_the_config_the_tokenizer_and_safetensors_is_fetched(hub, esm_directory):
    hub.publish(ESM2, esm_directory)

    found = fetch_model(ESM2)

    named = ["config.json", WEIGHTS, "tokenizer_config.json"]
    assert sorted(hub.fetched()) == named
    assert sorted(path.name for path in found.directory.iterdir()) == named


def test_bytes_that_were_damaged_on_their_way_are_refused_and_fetched_anew_once_deleted(hub, embed, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.damaged.add(WEIGHTS)

    with pytest.raises(ModelFormatError, match="the hub's cache holds a damaged copy of this file") as caught:
        embed("lab/tiny")

    hub.damaged.clear()
    Path(re.search("delete (.*) and fetch", str(caught.value))[1]).unlink()
    rows, _ = embed("lab/tiny")
    assert np.array_equal(rows, embed(tiny_model, "own")[0])


def test_what_protembed_wrote_comes_with_its_record(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)

    checkpoint = load_checkpoint(fetch_model("lab/tiny").directory)

    tokenizer = ["special_tokens_map.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(hub.fetched()) == ["config.json", WEIGHTS, "protembed.json", *tokenizer]
    assert checkpoint.metadata == load_checkpoint(tiny_model).metadata
    assert checkpoint.sha256() == load_checkpoint(tiny_model).sha256()


def test_a_model_of_the_hub_gives_the_vectors_of_its_directory(hub, esm_directory, embed, tmp_path):
    commit = hub.publish(ESM2, esm_directory)
    on_disk = Path(shutil.copytree(esm_directory, tmp_path / "tiny_esm"))

    fetched, meta = embed(ESM2, "fetched")
    local, local_meta = embed(on_disk, "local")

    np.testing.assert_array_equal(fetched, local)
    assert (meta["model_name"], meta["model_revision"]) == (ESM2, commit)
    assert (local_meta["model_name"], local_meta["model_revision"]) == ("tiny_esm", None)
    assert meta["model_sha256"] == local_meta["model_sha256"]


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", "commit"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, esm_directory, tiny_model, revision):
    main, other = hub.publish("lab/tiny", esm_directory), hub.publish("lab/tiny", tiny_model, revision)
    revision = other if revision == "commit" else revision

    named, default = locate_model(Path(f"lab/tiny@{revision}")), locate_model(Path("lab/tiny"))

    assert (named.name, named.revision) == ("lab/tiny", other)
    assert (default.name, default.revision) == ("lab/tiny", main)
    assert load_checkpoint(named.directory).sha256() == load_checkpoint(tiny_model).sha256()


@pytest.mark.parametrize("name", ["esm2_t12_35M", "ESM2_T12_35m", "esm2_t12_35M_ur50d", "Facebook/ESM2_t12_35M_UR50D"])
@pytest.mark.parametrize("revision", ["", "@v1"])
def test_a_published_model_goes_by_its_short_name_in_any_case(hub, tiny_model, name, revision):
    hub.publish("facebook/esm2_t12_35M_UR50D", tiny_model)
    hub.publish("facebook/esm2_t12_35M_UR50D", tiny_model, "v1")

    located = locate_model(Path(name + revision))

    assert located.name == "facebook/esm2_t12_35M_UR50D"
    assert located.revision == hub.find(located.name, revision.removeprefix("@"))[0]


def test_shards_are_fetched_with_their_index(hub, tiny_esm, tmp_path, embed):
    tiny_esm.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    hub.publish("lab/sharded", tmp_path / "sharded")

    fetched, _ = embed("lab/sharded", "fetched")

    shards = [path.name for path in (tmp_path / "sharded").glob("model-*.safetensors")]
    assert len(shards) > 1
    assert sorted(hub.fetched()) == sorted(["config.json", "model.safetensors.index.json", *shards])
    np.testing.assert_array_equal(fetched, embed(tmp_path / "sharded", "local")[0])


def test_what_was_fetched_is_not_fetched_again(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    first = fetch_model("lab/tiny")
    hub.requests.clear()

    assert fetch_model("lab/tiny") == first
    assert hub.fetched() == []


def test_the_cache_serves_where_the_network_is_off_or_gone(hub, tiny_model, offline):
    hub.publish("lab/tiny", tiny_model)
    first = fetch_model("lab/tiny")
    hub.requests.clear()

    assert fetch_model("lab/tiny", offline=True) == first
    assert hub.requests == []
    hub.stop()
    assert fetch_model("lab/tiny") == first
    offline()
    assert locate_model(Path("lab/tiny")).revision == first.revision


def test_the_variables_of_the_hub_are_honoured_and_nothing_is_said_of_fetching(
    hub, esm_directory, proteins_fasta, tmp_path
):
    commit = hub.publish(ESM2, esm_directory)

    fetched = shell(hub, tmp_path, "embed", proteins_fasta, "-m", ESM2, "-o", "emb.npy", "--quiet")
    sent = len(hub.requests)
    cached = shell(
        hub, tmp_path, "embed", proteins_fasta, "-m", "esm2_t6_8M", "-o", "again.npy", "--quiet", HF_HUB_OFFLINE="1"
    )

    warning = "warning: non-standard residues: 1 B, 3 X\n"  # of the proteins
    assert (fetched.returncode, fetched.stdout, fetched.stderr) == (0, "", warning)
    assert (cached.returncode, cached.stdout, cached.stderr) == (0, "", warning)
    assert 0 < sent == len(hub.requests)
    assert (tmp_path / "home" / "hub").is_dir()
    assert json.loads((tmp_path / "emb.meta.json").read_text())["model_revision"] == commit
    for suffix in (".npy", ".meta.json"):
        assert (tmp_path / f"emb{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()


def test_whoever_names_a_model_of_the_hub_is_told_that_it_may_be_fetched(hub, proteins_fasta):
    result = invoke("embed", proteins_fasta, "-m", "esm2_t6_8M", "-o", "-")

    assert f"downloading {ESM2} from the Hugging Face hub, unless it is in the cache" in result.stderr
    assert result.exit_code == 66


def test_a_model_that_is_not_in_the_cache_is_missed_where_the_network_is_off(hub, tiny_model, offline, proteins_fasta):
    hub.publish("lab/tiny", tiny_model)
    offline()

    result = invoke("embed", proteins_fasta, "-m", "lab/tiny", "-o", "-", "--quiet")

    assert result.exit_code == 66
    assert "lab/tiny: it is not in the cache, and the network is off; fetch it once with the network" in result.stderr
    assert result.stderr.count("\n") == 1
    assert hub.requests == []


def test_weights_that_are_not_in_the_cache_are_missed_where_the_network_is_off(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    huggingface_hub.hf_hub_download("lab/tiny", "config.json")

    with pytest.raises(InputNotFoundError, match="its weights are not in the cache; fetch it once with the network"):
        fetch_model("lab/tiny", offline=True)


@pytest.mark.parametrize("trouble", ["refused", 500, 503])
def test_a_hub_that_does_not_answer_is_one_sentence(hub, tiny_model, proteins_fasta, trouble):
    hub.publish("lab/tiny", tiny_model)
    if trouble == "refused":
        hub.stop()
    else:
        hub.refusals[""] = (trouble, {})

    result = invoke("embed", proteins_fasta, "-m", "lab/tiny", "-o", "-", "--quiet")

    assert result.exit_code == 1
    assert "lab/tiny: the hub could not be reached (" in result.stderr
    assert str(trouble) in result.stderr
    assert "; try again with a network, or name a model directory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_hub_that_fails_between_two_questions_is_not_one_without_the_weights(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.refusals["/tree/"] = (500, {})

    with pytest.raises(HubError, match="the hub could not be reached"):
        fetch_model("lab/tiny")

    hub.refusals = {WEIGHTS: (500, {})}
    with pytest.raises(HubError, match="500"):
        fetch_model("lab/tiny")

    hub.refusals = {}
    assert load_checkpoint(fetch_model("lab/tiny").directory)


def test_a_login_page_is_not_taken_for_the_hub(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.refusals[""] = (200, {"Content-Type": "text/html"})

    with pytest.raises(HubError, match="does not seem to be served by a Hugging Face Hub"):
        fetch_model("lab/tiny")


@pytest.mark.parametrize(
    ("name", "refusal", "error", "sentence"),
    [
        ("lab/other", None, InputNotFoundError, "the hub has no such model, or it is private; correct the name"),
        ("lab/tiny", (401, "RepoNotFound"), InputNotFoundError, "the hub has no such model, or it is private"),
        ("lab/tiny@v9", None, InputNotFoundError, "the hub's model has no such revision; correct what follows the @"),
        ("lab/tiny", (404, "EntryNotFound"), ModelFormatError, "the hub's model has no config.json; name an ESM-2"),
        ("lab/tiny", (403, "GatedRepo"), HubError, "only to those whom its owners let in; set HF_TOKEN"),
        ("lab/tiny", (401, "GatedRepo"), HubError, "only to those whom its owners let in; set HF_TOKEN"),
        ("lab/tiny--x", None, InputNotFoundError, "the hub has no names like this; correct it"),
    ],
)
def test_each_refusal_of_the_hub_is_its_own_sentence(hub, tiny_model, name, refusal, error, sentence):
    hub.publish("lab/tiny", tiny_model)
    if refusal is not None:
        status, code = refusal
        hub.refusals[""] = (status, {"X-Error-Code": code})

    with pytest.raises(error) as caught:
        locate_model(Path(name))

    assert str(caught.value).startswith(f"{name}: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_that_the_hub_refuses_is_named(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    hub.refusals[""] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    monkeypatch.setenv("HF_TOKEN", "hf_expired")

    with pytest.raises(HubError, match=r"lab/tiny: the hub refuses your token; .* unset it \(`hf auth logout`\)"):
        fetch_model("lab/tiny")


def test_a_gated_model_with_a_token_that_was_not_let_in_is_to_be_asked_for(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    hub.refusals[""] = (403, {"X-Error-Code": "GatedRepo"})
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    with pytest.raises(HubError, match="let in; ask for access on its page at the hub"):
        fetch_model("lab/tiny")


def test_a_hub_that_was_asked_too_often_is_to_be_waited_for(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.refusals[""] = (429, {})

    with pytest.raises(HubError, match=r"the hub was asked too often \(429\); wait some minutes"):
        fetch_model("lab/tiny")


def test_the_token_of_the_environment_is_shown_to_the_hub(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    fetch_model("lab/tiny")

    assert hub.tokens == {"Bearer hf_secret"}


def test_pickled_weights_are_refused_with_the_way_to_convert_them(hub, without_weights):
    hub.publish("facebook/esm2_t36_3B_UR50D", without_weights)

    with pytest.raises(ModelFormatError) as caught:
        locate_model(Path("esm2_t36_3B"))

    assert caught.value.exit_status == 65
    assert str(caught.value).startswith("facebook/esm2_t36_3B_UR50D: the hub has no safetensors of it; ")
    convert = "EsmForMaskedLM.from_pretrained('facebook/esm2_t36_3B_UR50D').save_pretrained('esm2_t36_3B_UR50D')"
    assert convert in str(caught.value)
    assert not [name for name in hub.fetched() if name.endswith((".safetensors", ".bin"))]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_type": "bert"}, "this is a model of type 'bert'"),
        ({"position_embedding_type": "absolute"}, "config.json has position_embedding_type 'absolute'"),
    ],
    ids=["another", "ESM-1b"],
)
def test_another_model_is_refused_by_name_before_its_weights_are_fetched(hub, tiny_model, tmp_path, changes, found):
    directory = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))
    hub.publish("facebook/esm1b_t33_650M_UR50S", directory)

    with pytest.raises(ModelFormatError) as caught:
        fetch_model("facebook/esm1b_t33_650M_UR50S")

    assert str(caught.value).startswith(f"facebook/esm1b_t33_650M_UR50S: {found}; protembed reads ESM-2")
    assert hub.fetched() == ["config.json"]


@pytest.mark.promise(19)
@pytest.mark.parametrize(
    "name", ["runs/model", "facebook/esm2_t6_8M_UR50D", "../models/tiny", "a/b/c", "missing", "/x"]
)
def test_a_mistyped_path_never_leaves_the_machine(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "facebook"):
        (tmp_path / folder).mkdir()

    with pytest.raises(InputNotFoundError, match="no such directory, no bundled model"):
        locate_model(Path(name))

    assert hub.requests == []


@pytest.mark.promise(19)
def test_what_is_on_disk_or_in_the_box_never_leaves_the_machine(hub, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["model", "lab/tiny", "esm2_t6_8M"]
    for name in names:
        shutil.copytree(tiny_model, tmp_path / name)

    for name in (*names, *(path.name for path in bundled_models())):
        located = locate_model(Path(name))
        assert (located.name, located.revision) == (Path(name).name, None)
    assert locate_model(None).revision is None
    assert hub.requests == []


def test_our_own_mistakes_keep_their_traceback(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    mistake = ZeroDivisionError("ours")

    def fail(directory):
        raise mistake

    monkeypatch.setattr("protembed.model.hub.read_shape", fail)

    with pytest.raises(ZeroDivisionError, match="ours"):
        fetch_model("lab/tiny")
    assert mistake.__cause__ is None
