import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from protembed.config.model_sizes import ESM2Shape
from protembed.errors import ModelFormatError
from protembed.model.esm2_format import ESM2_FORMAT
from protembed.model.untrusted import read_model_json
from protembed.model.weights import WeightFiles, split_weight, with_current_names, write_tensors

TINY = ESM2Shape(num_layers=2, dim=32, num_heads=4)


def write_shards(directory, shards, weight_map=None):
    for name, tensors in shards.items():
        save_file(tensors, directory / name)
    file_names = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {}, "weight_map": file_names if weight_map is None else weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def test_the_table_lists_each_weight_of_protembed_once(tiny_checkpoint):
    parts = {name: getattr(tiny_checkpoint, name) for name in ("encoder", "lm_head", "contact_head")}

    joined = {f"{part}.{name}" for part, module in parts.items() for name in module.state_dict()}
    assert set(ESM2_FORMAT.weight_names(TINY)) == joined


def test_the_table_lists_each_weight_of_transformers_once(tiny_esm):
    stored = [name for names in ESM2_FORMAT.weight_names(TINY).values() for name in names]

    computed = {name for name in tiny_esm.state_dict() if "inv_freq" in name} | {"lm_head.decoder.weight"}
    assert len(set(stored)) == len(stored)
    assert set(stored) == set(tiny_esm.state_dict()) - computed - {"lm_head.decoder.bias"}


def test_splitting_and_reading_a_weight_is_a_round_trip(tmp_path):
    names, joined = ("query", "key", "value"), torch.arange(12.0).reshape(6, 2)

    stored = dict(split_weight(joined, names))
    save_file(stored, tmp_path / "model.safetensors")

    assert {name: value.tolist() for name, value in stored.items()} == {
        "query": [[0, 1], [2, 3]],
        "key": [[4, 5], [6, 7]],
        "value": [[8, 9], [10, 11]],
    }
    with WeightFiles(tmp_path, ESM2_FORMAT) as weights:
        assert torch.equal(weights.weight(names, joined, torch.device("cpu")), joined)


def test_gamma_and_beta_are_read_as_weight_and_bias(tmp_path):
    save_file({"norm.gamma": torch.ones(2), "norm.beta": torch.zeros(2)}, tmp_path / "model.safetensors")

    with WeightFiles(tmp_path, ESM2_FORMAT) as weights:
        assert weights.tensor("norm.weight").tolist() == [1, 1]
        assert weights.tensor("norm.bias").tolist() == [0, 0]


def test_shards_are_read_as_one(tmp_path):
    write_shards(tmp_path, {"a.safetensors": {"one": torch.ones(1)}, "b.safetensors": {"two": torch.ones(2)}})

    with WeightFiles(tmp_path, ESM2_FORMAT) as weights:
        assert (len(weights.tensor("one")), len(weights.tensor("two"))) == (1, 2)


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "deep/x.safetensors", ".."])
def test_a_shard_must_lie_beside_its_index(tmp_path, name):
    (tmp_path / "model" / "deep").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "model" / "deep"):
        save_file({"one": torch.ones(1)}, folder / "x.safetensors")
    write_shards(tmp_path / "model", {}, {"one": name})

    with pytest.raises(ModelFormatError), WeightFiles(tmp_path / "model", ESM2_FORMAT):
        pass


@pytest.mark.parametrize("weight_map", [[], "model.safetensors", {"one": 1}, {"one": None}, {"one": ["a"]}, {}])
def test_an_index_without_shards_is_an_error(tmp_path, weight_map):
    write_shards(tmp_path, {}, weight_map)

    with pytest.raises(ModelFormatError), WeightFiles(tmp_path, ESM2_FORMAT) as weights:
        weights.tensor("one")


def test_a_missing_shard_is_an_error_that_names_it(tmp_path):
    write_shards(tmp_path, {}, {"one": "lost.safetensors"})

    with pytest.raises(ModelFormatError, match=r"lost\.safetensors"), WeightFiles(tmp_path, ESM2_FORMAT):
        pass


def test_a_git_lfs_pointer_instead_of_weights_is_an_error_with_advice(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 31000000\n"
    (tmp_path / "model.safetensors").write_text(pointer)

    message = r"model\.safetensors: this is a pointer of Git LFS.* run `git lfs pull`"
    with pytest.raises(ModelFormatError, match=message), WeightFiles(tmp_path, ESM2_FORMAT):
        pass


def test_a_missing_tensor_is_an_error_that_names_it(tmp_path):
    save_file({"one": torch.ones(1)}, tmp_path / "model.safetensors")

    with (
        pytest.raises(ModelFormatError, match="the weights have no two"),
        WeightFiles(tmp_path, ESM2_FORMAT) as weights,
    ):
        weights.tensor("two")


@pytest.mark.parametrize("layers", [[], [0], [0, 2], [0, 1, 2]])
def test_a_number_of_layers_other_than_configured_is_an_error(tmp_path, layers):
    names = [f"esm.encoder.layer.{layer}.LayerNorm.weight" for layer in layers] or ["other"]
    save_file({name: torch.ones(1) for name in names}, tmp_path / "model.safetensors")

    with pytest.raises(ModelFormatError, match="2 layers"), WeightFiles(tmp_path, ESM2_FORMAT) as weights:
        weights.check_num_layers(2)


def test_a_missing_json_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        read_model_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("encoder.layers.0.attention.project.weight", "encoder.layers.0.attention.qkv.weight"),
        ("encoder.layers.11.attention.output.bias/exp_avg", "encoder.layers.11.attention.out.bias/exp_avg"),
        ("layers.1.feed_forward.expand.weight", "layers.1.feed_forward.up.weight"),
        (
            "encoder.layers.1.feed_forward.contract.parametrizations.weight.0.down",
            "encoder.layers.1.feed_forward.down.parametrizations.weight.0.down",
        ),
        ("encoder.layers.1.feed_forward.up.weight", "encoder.layers.1.feed_forward.up.weight"),
        ("task_head.linear.weight", "task_head.linear.weight"),
    ],
)
def test_former_names_of_modules_are_replaced_and_others_stay(former, current):
    assert with_current_names({former: torch.zeros(1)}).keys() == {current}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_tensors_are_written_byte_for_byte_as_by_safetensors(tmp_path, metadata):
    tensors = {
        "b.weight": torch.arange(15.0).reshape(3, 5),
        "a": torch.tensor(1.5),
        'odd "é': torch.zeros(0, 4),
        "half": torch.ones(7, dtype=torch.float16),
        "bfloat16": torch.ones(2, 2, dtype=torch.bfloat16),
        "hashes": torch.arange(3),
    }
    expected, path = tmp_path / "expected.safetensors", tmp_path / "model.safetensors"
    save_file(tensors, expected, metadata)

    write_tensors(tensors, path, metadata)
    assert path.read_bytes() == expected.read_bytes()

    meta = {name: value.to("meta") for name, value in tensors.items()}
    write_tensors(meta, path, metadata, read=tensors.__getitem__)
    assert path.read_bytes() == expected.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_an_error_of_the_disk_has_its_number():
    with pytest.raises(OSError) as caught:
        write_tensors({"weight": torch.zeros(1)}, Path("/dev/full"))

    assert caught.value.errno == errno.ENOSPC
