import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.config.model_sizes import ESM2Shape
from protembed.data.alphabet import RESIDUES, TOKENS
from protembed.errors import InputNotFoundError, ModelFormatError
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint, write_checkpoint_files
from protembed.model.formats import format_of
from protembed.model.metadata import FORMAT_VERSION, ModelMetadata

TINY = ESM2Shape(num_layers=2, dim=32, num_heads=4)


def weights(checkpoint):
    parts = {"encoder": checkpoint.encoder, "lm_head": checkpoint.lm_head, "contact_head": checkpoint.contact_head}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}


def assert_same_weights(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture
def copy(tiny_model, tmp_path):
    """A copy of the tiny model for changes."""
    return shutil.copytree(tiny_model, tmp_path / "copy")


def rewrite_config(directory, **changes):
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def rewrite_weights(directory, rewrite):
    path = directory / "model.safetensors"
    save_file(rewrite(load_file(path)), path, metadata={"format": "pt"})


# Round trips


def test_a_saved_model_is_loaded_unchanged(family_checkpoint, tmp_path):
    family_checkpoint.contact_head.weight.fill_(0.5)

    save_checkpoint(family_checkpoint, tmp_path / "model", "# card\n")
    loaded = load_checkpoint(tmp_path / "model")

    assert_same_weights(loaded, family_checkpoint)
    assert loaded.encoder.shape == family_checkpoint.encoder.shape
    assert torch.equal(loaded.encoder.inverse_frequencies, family_checkpoint.encoder.inverse_frequencies)
    assert loaded.directory == tmp_path / "model"
    assert loaded.task_head is None


def test_a_loaded_model_computes_in_evaluation_mode_and_can_be_trained(family_model):
    checkpoint = load_checkpoint(str(family_model))
    parameters = [*checkpoint.encoder.parameters(), *checkpoint.lm_head.parameters()]

    assert not checkpoint.encoder.training
    assert {(value.dtype, value.device.type, value.requires_grad) for value in parameters} == {
        (torch.float32, "cpu", True)
    }


def test_saved_metadata_are_loaded_unchanged(tiny_checkpoint, tmp_path):
    tiny_checkpoint.metadata = ModelMetadata(
        window_residues=256,
        layer=1,
        pooling="max",
        configuration={"steps": 10},
        corpus_fingerprint="abc",
        metrics={"valid_loss": 2.5},
    )

    save_checkpoint(tiny_checkpoint, tmp_path / "model", "# card\n")

    assert load_checkpoint(tmp_path / "model").metadata == tiny_checkpoint.metadata
    written = json.loads((tmp_path / "model" / "protembed.json").read_text())
    assert (written["format_version"], written["contact_head_fitted"]) == (1, False)


def test_weights_saved_in_half_precision_are_half_as_large_and_loaded_as_float32(tiny_checkpoint, tiny_model, tmp_path):
    write_checkpoint_files(tiny_checkpoint, tmp_path, "# card\n", dtype=torch.float16)
    loaded = load_checkpoint(tmp_path)

    assert (tmp_path / "model.safetensors").stat().st_size < 0.6 * (tiny_model / "model.safetensors").stat().st_size
    for name, value in weights(tiny_checkpoint).items():
        assert torch.equal(weights(loaded)[name], value.half().float()), name
    assert {value.dtype for value in weights(loaded).values()} == {torch.float32}
    stored = load_file(tmp_path / "model.safetensors")
    frequencies = [value for name, value in stored.items() if name.endswith("inv_freq")]
    assert all(torch.equal(value, tiny_checkpoint.encoder.inverse_frequencies) for value in frequencies)


@pytest.mark.promise(9)
def test_saving_the_same_model_gives_the_same_files(family_checkpoint, tmp_path):
    for name in ("one", "two"):
        save_checkpoint(family_checkpoint, tmp_path / name, "# card\n")

    files = {path.name for path in (tmp_path / "one").iterdir()}
    tokenizer = set(format_of(family_checkpoint.encoder.shape).tokenizer_files())
    assert files == {"config.json", "model.safetensors", "README.md", "protembed.json"} | tokenizer
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_saving_replaces_an_older_model_and_leaves_no_other_files(family_checkpoint, tmp_path):
    save_checkpoint(new_checkpoint(TINY, "uniform", seed=5), tmp_path / "model", "# old\n")
    save_checkpoint(family_checkpoint, tmp_path / "model", "# new\n")

    assert_same_weights(load_checkpoint(tmp_path / "model"), family_checkpoint)
    assert (tmp_path / "model" / "README.md").read_text() == "# new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_is_saved_under_a_name_without_a_card_of_its_own(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    save_checkpoint(tiny_checkpoint, "mine")

    assert_same_weights(load_checkpoint("mine"), tiny_checkpoint)
    assert (tmp_path / "mine" / "README.md").read_text() == "# A protein language model\n"


def test_a_model_is_shown_in_one_line(tiny_checkpoint):
    tiny_checkpoint.metadata = ModelMetadata(task="regression")

    assert repr(tiny_checkpoint) == "Checkpoint(2 layers of width 32, 0.0 M parameters, task=regression)"
    assert repr(load_checkpoint("protembed_t6_8M")) == "Checkpoint(t6_8M, 7.5 M parameters, task=None)"


def test_the_hash_of_a_model_depends_on_its_weights_alone(family_checkpoint, tmp_path):
    save_checkpoint(family_checkpoint, tmp_path / "one", "# one\n")
    save_checkpoint(family_checkpoint, tmp_path / "same", "# same\n")
    save_checkpoint(new_checkpoint(TINY, "gaussian", seed=1), tmp_path / "other", "# other\n")

    one, same, other = (load_checkpoint(tmp_path / name).sha256() for name in ("one", "same", "other"))

    assert one == same != other
    with pytest.raises(ValueError, match="not saved"):
        family_checkpoint.sha256()


def test_parameters_are_counted_once(tiny_checkpoint):
    layer = 12 * 32 * 32 + (3 + 1 + 4 + 1) * 32 + 4 * 32
    head = 32 * 32 + 3 * 32 + 33

    assert tiny_checkpoint.num_parameters == 33 * 32 + 2 * layer + 2 * 32 + head


# Hugging Face


def test_transformers_loads_saved_models_without_warnings(family_model, family_shape, capfd):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()

    model, facts = getattr(transformers, format_of(family_shape).class_name).from_pretrained(
        family_model, output_loading_info=True
    )

    assert not any(facts.values())
    assert capfd.readouterr() == ("", "")
    assert model.dtype == torch.float32


@pytest.mark.promise(11)
@torch.no_grad()
def test_transformers_computes_the_same_hidden_states_with_saved_models(tiny_model, whole_batch, proteins):
    transformers = pytest.importorskip("transformers")
    checkpoint = load_checkpoint(tiny_model)
    reference = transformers.EsmForMaskedLM.from_pretrained(tiny_model).eval()
    batch = whole_batch(proteins[:1])

    hidden = checkpoint.encoder(batch.tokens, checkpoint.encoder.layout(batch.offsets))
    logits = checkpoint.lm_head(hidden, checkpoint.encoder.embedding.weight)

    torch.testing.assert_close(logits, reference(batch.tokens[None]).logits[0], rtol=1e-5, atol=1e-5)


@pytest.mark.promise(11)
def test_a_round_trip_through_transformers_keeps_the_weights(family_model, family_shape, tmp_path):
    transformers = pytest.importorskip("transformers")

    getattr(transformers, format_of(family_shape).class_name).from_pretrained(family_model).save_pretrained(
        tmp_path / "back"
    )

    assert_same_weights(load_checkpoint(tmp_path / "back"), load_checkpoint(family_model))


def test_the_tokenizer_of_transformers_reads_the_saved_vocabulary(tiny_model):
    transformers = pytest.importorskip("transformers")

    tokenizer = transformers.EsmTokenizer.from_pretrained(tiny_model)

    assert tokenizer.get_vocab() == {token: number for number, token in enumerate(TOKENS)}
    assert tokenizer(RESIDUES)["input_ids"] == [0, *map(TOKENS.index, RESIDUES), 2]


def test_shards_with_an_index_are_read(tiny_esm, tmp_path):
    tiny_esm.save_pretrained(tmp_path / "whole")
    tiny_esm.save_pretrained(tmp_path / "shards", max_shard_size="40KB")

    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    assert_same_weights(load_checkpoint(tmp_path / "shards"), load_checkpoint(tmp_path / "whole"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_loaded_as_float32(copy, tiny_model, dtype):
    rewrite_weights(copy, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    rewrite_config(copy, dtype=str(dtype).removeprefix("torch."))

    loaded, whole = load_checkpoint(copy), load_checkpoint(tiny_model)

    assert {value.dtype for value in weights(loaded).values()} == {torch.float32}
    assert all(torch.equal(value.to(dtype).float(), weights(loaded)[name]) for name, value in weights(whole).items())
    rounded = whole.encoder.inverse_frequencies.to(dtype).float()
    assert torch.equal(loaded.encoder.inverse_frequencies, rounded)


def test_the_weight_names_of_older_directories_are_read(tiny_esm, tmp_path):
    tiny_esm.save_pretrained(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")

    def with_former_names(tensors):
        renamed = {
            name.replace(".gamma", ".weight").replace(".beta", ".bias"): value
            for name, value in tensors.items()
            if "inv_freq" not in name
        }
        rotary = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
        return renamed | {
            **{rotary.format(layer): torch.ones(4).half() for layer in range(2)},
            "esm.embeddings.position_embeddings.weight": torch.zeros(1026, 32),
            "esm.embeddings.position_ids": torch.arange(1026)[None],
            "lm_head.decoder.weight": renamed["esm.embeddings.word_embeddings.weight"].clone(),
        }

    rewrite_weights(tmp_path / "old", with_former_names)

    assert "esm.encoder.layer.0.LayerNorm.gamma" in load_file(tmp_path / "new" / "model.safetensors")
    old, new = load_checkpoint(tmp_path / "old"), load_checkpoint(tmp_path / "new")
    assert_same_weights(old, new)
    assert old.encoder.inverse_frequencies.tolist() == [1, 1, 1, 1]


# Refusals


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_type": "bert"}, "a model of type 'bert'"),
        ({"model_type": ...}, "a model of type None"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"position_embedding_type": ...}, "position_embedding_type"),
        ({"token_dropout": "yes"}, "token_dropout 'yes'"),
        ({"token_dropout": ...}, "token_dropout"),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps 1e-12"),
        ({"layer_norm_eps": ...}, "layer_norm_eps"),
        ({"emb_layer_norm_before": "yes"}, "emb_layer_norm_before 'yes'"),
        ({"is_folding_model": True}, "this is ESMFold"),
        ({"vocab_size": 34}, "vocab_size 34"),
        ({"mask_token_id": 31}, "mask_token_id 31"),
        ({"rope_theta": 500.0}, "rope_theta 500"),
        ({"num_hidden_layers": 3}, "config.json names 3 layers, the weights have 2"),
        ({"num_hidden_layers": 1}, "config.json names 1 layers, the weights have 2"),
        ({"num_hidden_layers": -1}, "num_hidden_layers -1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers '2'"),
        ({"num_hidden_layers": True}, "num_hidden_layers True"),
        ({"hidden_size": -32}, "hidden_size -32"),
        ({"hidden_size": 32.0}, "hidden_size 32.0"),
        ({"hidden_size": ...}, "hidden_size None"),
        ({"hidden_size": 64}, "intermediate_size 128, where ESM-2 of this shape has 256"),
        ({"hidden_size": 64, "intermediate_size": 256}, "has shape"),
        ({"num_attention_heads": 5}, "does not divide into 5 heads"),
        ({"num_attention_heads": 32}, "does not divide into 32 heads of even size"),
        ({"num_attention_heads": 2}, "has shape"),
    ],
    ids=str,
)
def test_a_model_that_contradicts_its_config_or_is_no_esm2_is_an_error(copy, changes, found):
    rewrite_config(copy, **changes)

    with pytest.raises(ModelFormatError, match=found) as caught:
        load_checkpoint(copy)

    assert caught.value.exit_status == 65


@pytest.mark.promise(18)
def test_missing_layers_are_an_error_before_any_layer_is_allocated(copy, monkeypatch):
    rewrite_config(copy, num_hidden_layers=999_999)
    monkeypatch.setattr("protembed.model.esm2.Layer", lambda *parts: pytest.fail("a layer was made"))

    with pytest.raises(ModelFormatError, match="config.json names 999999 layers, the weights have 2"):
        load_checkpoint(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"esm"'])
@pytest.mark.parametrize("name", ["config.json", "protembed.json"])
def test_unreadable_json_is_an_error(copy, name, content):
    (copy / name).write_bytes(content)

    with pytest.raises(ModelFormatError, match=name):
        load_checkpoint(copy)


def test_a_newer_format_version_is_an_error_and_missing_metadata_are_not(copy):
    metadata = json.loads((copy / "protembed.json").read_text())
    (copy / "protembed.json").write_text(json.dumps(metadata | {"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(ModelFormatError, match="format version .*install a newer one"):
        load_checkpoint(copy)

    (copy / "protembed.json").unlink()
    assert load_checkpoint(copy).metadata == ModelMetadata()


def test_unknown_fields_of_the_metadata_are_ignored(copy):
    metadata = json.loads((copy / "protembed.json").read_text())
    del metadata["metrics"]
    (copy / "protembed.json").write_text(json.dumps(metadata | {"later": 1, "window_residues": 128}))

    assert load_checkpoint(copy).metadata == dataclasses.replace(ModelMetadata(), window_residues=128)


@pytest.mark.parametrize("kept", [0, 4, 7, 200, -1])
def test_incomplete_weights_are_an_error(copy, kept):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(ModelFormatError, match="damaged"):
        load_checkpoint(copy)


def test_a_missing_tensor_of_a_model_is_an_error_that_names_it(copy):
    name = "esm.encoder.layer.1.attention.self.key.bias"
    rewrite_weights(copy, lambda tensors: {stored: value for stored, value in tensors.items() if stored != name})

    with pytest.raises(ModelFormatError, match=name):
        load_checkpoint(copy)


@pytest.mark.promise(18)
def test_pickled_weights_are_not_opened(copy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (copy / "model.safetensors").unlink()
    torch.save(Bomb(), copy / "pytorch_model.bin")

    with pytest.raises(ModelFormatError, match="pickled weights are not read"):
        load_checkpoint(copy)
    assert not (tmp_path / "exploded").exists()


def test_a_directory_without_a_model_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputNotFoundError) as caught:
            load_checkpoint(path)
        assert caught.value.exit_status == 66


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 5},
        {"classes": [1]},
        {"layer": "x"},
        {"window_residues": []},
        {"pooling": "median"},
        {"pooling": "mean,"},
        {"target": 7},
        {"task": "guessing"},
    ],
)
def test_metadata_of_wrong_types_are_an_error(tiny_checkpoint, tmp_path, change):
    save_checkpoint(tiny_checkpoint, tmp_path / "m", "# m\n")
    path = tmp_path / "m" / "protembed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(ModelFormatError, match=f"protembed.json has {next(iter(change))}"):
        load_checkpoint(tmp_path / "m")
