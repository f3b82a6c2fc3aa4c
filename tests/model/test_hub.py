import dataclasses
import errno
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
from protembed.config.embed import EmbedOptions
from protembed.config.model_sizes import ESMCShape
from protembed.embedding.embed import embed_fasta
from protembed.errors import HubError, InputNotFoundError, ModelFormatError
from protembed.model.catalog import bundled_models, locate_model
from protembed.model.checkpoint import load_checkpoint
from protembed.model.formats import config_json
from protembed.model.hub import fetch_model
from protembed.model.published import PUBLISHED_MODELS

ESM2 = "facebook/esm2_t6_8M_UR50D"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def esm_directory(tiny_esm, tmp_path_factory):
    """A directory that transformers wrote, with the other files of ESM-2's repositories."""
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
    """A repository with pickled weights only."""
    directory = tmp_path / "without_weights"
    shutil.copytree(esm_directory, directory)
    (directory / WEIGHTS).unlink()
    return directory


@pytest.fixture
def embed(tmp_path, proteins_fasta):
    """Embed with a model into `tmp_path / name`; return the rows and the metadata."""

    def run(model, name="emb"):
        embed_fasta(
            [proteins_fasta],
            EmbedOptions.from_values(model=Path(model), output=tmp_path / f"{name}.npy"),
        )
        return np.load(tmp_path / f"{name}.npy"), json.loads((tmp_path / f"{name}.meta.json").read_text())

    return run


@pytest.fixture
def offline(monkeypatch):
    """Switch the network off, as HF_HUB_OFFLINE=1 does."""
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def shell(hub, tmp_path, *arguments, **variables):
    """Run protembed as a user does, with the hub and its cache set in the environment."""
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
def test_only_the_config_the_tokenizer_and_safetensors_are_fetched(hub, esm_directory):
    hub.publish(ESM2, esm_directory)

    found = fetch_model(ESM2)

    named = ["config.json", WEIGHTS, "tokenizer_config.json"]
    assert sorted(hub.fetched()) == named
    assert sorted(path.name for path in found.iterdir()) == named


def test_damaged_downloads_are_an_error_and_fetched_again_once_deleted(hub, embed, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.damaged.add(WEIGHTS)

    with pytest.raises(ModelFormatError, match="the hub's cache holds a damaged copy of this file") as caught:
        embed("lab/tiny")

    hub.damaged.clear()
    Path(re.search("delete (.*) and fetch", str(caught.value))[1]).unlink()
    rows, _ = embed("lab/tiny")
    assert np.array_equal(rows, embed(tiny_model, "own")[0])


def test_models_that_protembed_wrote_are_fetched_with_their_metadata(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)

    checkpoint = load_checkpoint(fetch_model("lab/tiny"))

    tokenizer = ["special_tokens_map.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(hub.fetched()) == ["config.json", WEIGHTS, "protembed.json", *tokenizer]
    assert checkpoint.metadata == load_checkpoint(tiny_model).metadata
    assert checkpoint.sha256() == load_checkpoint(tiny_model).sha256()


def test_a_model_of_the_hub_gives_the_same_vectors_as_its_directory(hub, esm_directory, embed, tmp_path):
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
def test_a_published_model_is_found_by_its_short_name_in_any_case(hub, tiny_model, name, revision):
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


def test_a_cached_model_is_not_fetched_again(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    first = fetch_model("lab/tiny")
    hub.requests.clear()

    assert fetch_model("lab/tiny") == first
    assert hub.fetched() == []


def test_cached_models_are_found_without_a_network(hub, tiny_model, offline):
    hub.publish("lab/tiny", tiny_model)
    first = fetch_model("lab/tiny")
    hub.requests.clear()

    assert fetch_model("lab/tiny", offline=True) == first
    assert hub.requests == []
    hub.stop()
    assert fetch_model("lab/tiny") == first
    offline()
    assert locate_model("lab/tiny").revision == first.name


def test_the_environment_variables_of_the_hub_are_honoured(hub, esm_directory, proteins_fasta, tmp_path):
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


def test_using_a_model_of_the_hub_announces_the_download(hub, proteins_fasta):
    result = invoke("embed", proteins_fasta, "-m", "esm2_t6_8M", "-o", "-")

    assert f"downloading {ESM2} from the Hugging Face hub, unless it is in the cache" in result.stderr
    assert result.exit_code == 66


def test_a_model_missing_from_the_cache_is_an_error_without_a_network(hub, tiny_model, offline, proteins_fasta):
    hub.publish("lab/tiny", tiny_model)
    offline()

    result = invoke("embed", proteins_fasta, "-m", "lab/tiny", "-o", "-", "--quiet")

    assert result.exit_code == 66
    assert "lab/tiny: it is not in the cache, and the network is off; fetch it once with the network" in result.stderr
    assert result.stderr.count("\n") == 1
    assert hub.requests == []


def test_weights_missing_from_the_cache_are_an_error_without_a_network(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    huggingface_hub.hf_hub_download("lab/tiny", "config.json")

    with pytest.raises(InputNotFoundError, match="its weights are not in the cache; fetch it once with the network"):
        fetch_model("lab/tiny", offline=True)


@pytest.mark.parametrize("failure", ["refused", 500, 503])
def test_an_unreachable_hub_is_a_one_line_error(hub, tiny_model, proteins_fasta, failure):
    hub.publish("lab/tiny", tiny_model)
    if failure == "refused":
        hub.stop()
    else:
        hub.failures[""] = (failure, {})

    result = invoke("embed", proteins_fasta, "-m", "lab/tiny", "-o", "-", "--quiet")

    assert result.exit_code == 1
    assert "lab/tiny: the hub could not be reached (" in result.stderr
    assert str(failure) in result.stderr or "(the connection failed)" in result.stderr
    assert "; try again with a network, or pass a model directory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_hub_that_fails_between_two_requests_is_not_mistaken_for_missing_weights(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.failures["/api/models/"] = (500, {})

    with pytest.raises(HubError, match="the hub could not be reached"):
        fetch_model("lab/tiny")

    hub.failures = {WEIGHTS: (500, {})}
    with pytest.raises(HubError, match="500"):
        fetch_model("lab/tiny")

    hub.failures = {}
    assert load_checkpoint(fetch_model("lab/tiny"))


def test_a_login_page_is_not_mistaken_for_the_hub(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.failures[""] = (200, {"Content-Type": "text/html"})

    with pytest.raises(HubError, match="does not seem to be "):
        fetch_model("lab/tiny")


@pytest.mark.parametrize(
    ("name", "response", "error", "message"),
    [
        ("lab/other", None, InputNotFoundError, "or it is private; correct the name; set HF_TOKEN if it is private"),
        ("lab/tiny", (401, "RepoNotFound"), InputNotFoundError, "the hub has no such model, or it is private"),
        ("lab/tiny@v9", None, InputNotFoundError, "the hub's model has no such revision; correct what follows the @"),
        ("lab/tiny", (404, "EntryNotFound"), ModelFormatError, "no config.json; protembed reads ESM-2, ESM-1b"),
        ("lab/tiny", (403, "GatedRepo"), HubError, "gated; request access on its page on the hub and set HF_TOKEN"),
        ("lab/tiny", (401, "GatedRepo"), HubError, "gated; request access on its page on the hub and set HF_TOKEN"),
        ("lab/tiny", (403, ""), HubError, "access to the hub is forbidden (403); check the permissions of your token"),
        ("lab/tiny--x", None, InputNotFoundError, "this is not a valid name on the hub; correct it"),
    ],
)
def test_each_error_of_the_hub_has_its_message(hub, tiny_model, name, response, error, message):
    hub.publish("lab/tiny", tiny_model)
    if response is not None:
        status, code = response
        hub.failures[""] = (status, {"X-Error-Code": code})

    with pytest.raises(error) as caught:
        locate_model(Path(name))

    assert str(caught.value).startswith(f"{name}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rejected_token_is_an_error_with_advice(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    hub.failures[""] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    monkeypatch.setenv("HF_TOKEN", "hf_expired")

    with pytest.raises(HubError, match=r"lab/tiny: the hub rejects your token; .* unset it \(`hf auth logout`\)"):
        fetch_model("lab/tiny")


def test_a_cache_without_a_place_is_an_error_with_advice(hub, tiny_model, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("Could not determine home directory.")  # as for a user of a container that has no name

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)

    with pytest.raises(HubError, match="because HOME is not set; set HF_HOME to a directory for them"):
        fetch_model("owner/model")


def test_a_private_model_that_a_token_does_not_open_is_an_error_that_says_so(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    with pytest.raises(InputNotFoundError, match="correct the name; your token gives no access to it"):
        fetch_model("lab/private")


def test_a_model_that_the_hub_has_disabled_is_an_error(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.failures[""] = (403, {"X-Error-Message": "Access to this resource is disabled."})

    with pytest.raises(HubError, match="the hub has disabled this model"):
        fetch_model("lab/tiny")


def test_a_full_disk_of_the_cache_is_an_error_that_names_the_cache(hub, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.incomplete")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)

    with pytest.raises(
        HubError, match=r"cache, .*hub, cannot be written \(No space left on device\); free space"
    ) as caught:
        fetch_model("lab/tiny")
    assert "HF_HOME" in str(caught.value)


def test_a_connection_that_huggingface_hub_has_closed_is_an_unreachable_hub(hub, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("Cannot send a request, as the client has been closed.")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)

    with pytest.raises(HubError, match=r"the hub could not be reached \(the connection failed\); try again"):
        fetch_model("lab/tiny")


def test_versions_that_do_not_go_together_are_an_error_that_names_those_that_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(HubError, match=r"huggingface_hub cannot be used \(.*\); install huggingface_hub 0.34 or newer"):
        fetch_model("lab/tiny")


def test_a_gated_model_is_an_error_with_advice_to_request_access(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    hub.failures[""] = (403, {"X-Error-Code": "GatedRepo"})
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    with pytest.raises(HubError, match="this model is gated; request access on its page on the hub$"):
        fetch_model("lab/tiny")


def test_too_many_requests_are_an_error_with_advice_to_wait(hub, tiny_model):
    hub.publish("lab/tiny", tiny_model)
    hub.failures[""] = (429, {})

    with pytest.raises(HubError, match=r"the hub received too many requests \(429\); wait some minutes"):
        fetch_model("lab/tiny")


def test_the_token_of_the_environment_is_sent_to_the_hub(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    fetch_model("lab/tiny")

    assert hub.tokens == {"Bearer hf_secret"}


def test_pickled_weights_on_the_hub_are_an_error_with_the_command_to_convert_them(hub, without_weights):
    hub.publish("facebook/esm2_t48_15B_UR50D", without_weights)
    hub.publish("facebook/esm2_t48_15B_UR50D", without_weights, "refs/pr/1")

    with pytest.raises(ModelFormatError) as caught:
        locate_model(Path("esm2_t48_15B"))

    assert caught.value.exit_status == 65
    assert str(caught.value).startswith("facebook/esm2_t48_15B_UR50D: the hub has no safetensors of it; ")
    convert = "EsmForMaskedLM.from_pretrained('facebook/esm2_t48_15B_UR50D').save_pretrained('esm2_t48_15B_UR50D')"
    assert convert in str(caught.value)
    assert not [name for name in hub.fetched() if name.endswith((".safetensors", ".bin"))]


def test_the_newest_pull_request_with_safetensors_is_named_and_can_be_used(hub, esm_directory, without_weights):
    hub.publish("lab/pickled", without_weights)
    for number in (2, 10):  # sorted by number, not by text
        hub.publish("lab/pickled", esm_directory, f"refs/pr/{number}")
    hub.publish("lab/pickled", without_weights, "refs/pr/11")

    with pytest.raises(ModelFormatError) as caught:
        locate_model("lab/pickled")

    assert "only pickled weights of it, which can run code" in str(caught.value)
    assert "https://huggingface.co/lab/pickled/discussions/10 offers safetensors: see who made them" in str(
        caught.value
    )
    assert not [name for name in hub.fetched() if name.endswith((".safetensors", ".bin"))]
    named = re.search("`-m (.*)`", str(caught.value))[1]
    assert named == "lab/pickled@refs/pr/10"
    assert load_checkpoint(named)


def test_a_hub_without_pull_requests_names_the_command_that_converts(hub, without_weights):
    hub.publish("lab/pickled", without_weights)
    hub.failures["/refs"] = (404, {})

    with pytest.raises(ModelFormatError, match="convert them with `python -c .*EsmForMaskedLM"):
        locate_model("lab/pickled")


def test_the_command_that_converts_names_the_class_of_the_model(hub, tmp_path):
    shape = ESMCShape(num_layers=1, dim=64, num_heads=1)
    (tmp_path / "esmc").mkdir()
    (tmp_path / "esmc" / "config.json").write_text(json.dumps(config_json(shape)))
    hub.publish("lab/pickled", tmp_path / "esmc")

    with pytest.raises(ModelFormatError, match="from transformers import EsmcForMaskedLM; EsmcForMaskedLM.from"):
        locate_model("lab/pickled")


def test_a_pinned_revision_is_fetched(hub, tiny_model, without_weights, monkeypatch):
    pinned = dataclasses.replace(PUBLISHED_MODELS[0], revision="v7")
    monkeypatch.setattr("protembed.model.catalog.PUBLISHED_MODELS", (pinned,))
    hub.publish(pinned.hub_id, without_weights)
    commit = hub.publish(pinned.hub_id, tiny_model, "v7")

    located = locate_model(pinned.name)

    assert (located.name, located.revision) == (pinned.hub_id, commit)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_type": "bert"}, "this is a model of type 'bert'"),
        ({"position_embedding_type": "relative_key"}, "config.json has position_embedding_type 'relative_key'"),
    ],
    ids=["another", "another kind of positions"],
)
def test_an_unsupported_model_is_an_error_before_its_weights_are_fetched(hub, tiny_model, tmp_path, changes, found):
    directory = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))
    hub.publish("facebook/esm1b_t33_650M_UR50S", directory)

    with pytest.raises(ModelFormatError) as caught:
        fetch_model("facebook/esm1b_t33_650M_UR50S")

    assert str(caught.value).startswith(f"facebook/esm1b_t33_650M_UR50S: {found}; ")
    assert hub.fetched() == ["config.json"]


@pytest.mark.promise(19)
@pytest.mark.parametrize(
    "name", ["runs/model", "facebook/esm2_t6_8M_UR50D", "../models/tiny", "a/b/c", "missing", "/x"]
)
def test_a_mistyped_path_causes_no_request(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "facebook"):
        (tmp_path / folder).mkdir()

    with pytest.raises(InputNotFoundError, match="no such directory, no bundled model"):
        locate_model(Path(name))

    assert hub.requests == []


@pytest.mark.promise(19)
def test_models_on_disk_and_bundled_models_cause_no_request(hub, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["model", "lab/tiny", "esm2_t6_8M"]
    for name in names:
        shutil.copytree(tiny_model, tmp_path / name)

    for name in (*names, *(path.name for path in bundled_models())):
        located = locate_model(Path(name))
        assert (located.name, located.revision) == (Path(name).name, None)
    assert locate_model(None).revision is None
    assert hub.requests == []


def test_unexpected_errors_keep_their_traceback(hub, tiny_model, monkeypatch):
    hub.publish("lab/tiny", tiny_model)
    defect = ZeroDivisionError("unexpected")

    def fail(directory):
        raise defect

    monkeypatch.setattr("protembed.model.hub.read_shape", fail)

    with pytest.raises(ZeroDivisionError, match="unexpected"):
        fetch_model("lab/tiny")
    assert defect.__cause__ is None
