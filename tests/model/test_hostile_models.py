import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.errors import ModelFormatError
from protembed.model.checkpoint import load_checkpoint
from protembed.model.formats import format_of, read_shape
from protembed.model.hf_format import TOKENIZER_FILES
from protembed.model.untrusted import model_sha256

WEIGHTS, INDEX, METADATA, HEAD = (
    "model.safetensors",
    "model.safetensors.index.json",
    "protembed.json",
    "head.safetensors",
)
CANARY = "canary"
# What transformers, torch and accelerate unpickle or import where they are asked to trust a directory, and more.
PICKLES = (
    *("pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", ".metadata"),
    *("model.pkl", "model.ckpt", "tf_model.h5", "flax_model.msgpack", "head.pt", "protembed.pkl", "vocab.pkl"),
)
MODULES = ("tokenizer.py", "modeling_esm.py", "configuration_esm.py", "evil.py", "__init__.py", "sitecustomize.py")


@pytest.fixture
def untrusted(tiny_model, tmp_path):
    """A copy of the tiny model, as the base of hostile ones."""
    return shutil.copytree(tiny_model, tmp_path / "untrusted")


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def describe(names, dtype="F32", shape=(0,), offsets=(0, 0)):
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} for name in names}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def set_bombs(directory, canary):
    for name in PICKLES:
        with (directory / name).open("wb") as stream:
            torch.save(Bomb(canary), stream)
    np.save(directory / "embeddings.npy", np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    for name in MODULES:
        (directory / name).write_text(f"open({str(canary)!r}, 'w')\n")
    rewrite(
        directory / "config.json",
        auto_map={name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoModelForMaskedLM")},
        _attn_implementation_internal="evil/kernel",
        attn_implementation="evil/kernel:evil",
        quantization_config={"quant_method": "evil", "modules": ["evil"]},
        trust_remote_code=True,
        custom_pipelines={"fill-mask": {"impl": "evil.Evil"}},
    )
    rewrite(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})


# Nothing runs


@pytest.mark.promise(18)
@pytest.mark.parametrize("has_weights", [True, False])
def test_loading_an_untrusted_model_unpickles_imports_and_runs_nothing(untrusted, tmp_path, monkeypatch, has_weights):
    set_bombs(untrusted, tmp_path / CANARY)
    monkeypatch.chdir(untrusted)
    modules, opened = set(sys.modules), []
    monkeypatch.setattr(socket.socket, "connect", lambda *address: pytest.fail("something was asked of the network"))
    true_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest, **more: opened.append(path) or true_open(path, *rest, **more))
    if has_weights:
        assert load_checkpoint(untrusted).sha256() == model_sha256(untrusted)
    else:
        (untrusted / WEIGHTS).unlink()
        with pytest.raises(ModelFormatError, match="pickled weights are not read"):
            load_checkpoint(untrusted)

    assert not (tmp_path / CANARY).exists()
    assert {path.name for path in opened} <= {"config.json", *TOKENIZER_FILES, METADATA, WEIGHTS}
    assert not {Path(name).stem for name in MODULES} & (set(sys.modules) - modules)


@pytest.mark.promise(18)
def test_the_attacks_of_these_tests_succeed_where_files_are_trusted(untrusted, tmp_path):
    set_bombs(untrusted, tmp_path / CANARY)

    torch.load(untrusted / "optimizer.pt", weights_only=False)

    assert (tmp_path / CANARY).exists()


# Nothing outside is read


def link_out(directory, name):
    """Replace a file by a link to a valid one outside the directory."""
    outside = directory.parent / f"outside-{name}"
    shutil.move(directory / name, outside)
    (directory / name).symlink_to(outside)


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", ["config.json", METADATA, WEIGHTS])
def test_a_link_out_of_the_directory_is_an_error(untrusted, name):
    link_out(untrusted, name)

    with pytest.raises(ModelFormatError, match=rf"{name}: this link leads out of the model's directory") as caught:
        load_checkpoint(untrusted)

    assert caught.value.exit_status == 65


@pytest.mark.promise(18)
def test_a_link_among_shards_and_heads_is_an_error(untrusted):
    os.rename(untrusted / WEIGHTS, untrusted / "a.safetensors")
    (untrusted / INDEX).write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    (untrusted / "b.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(ModelFormatError, match="leads out"):
        load_checkpoint(untrusted)

    (untrusted / INDEX).write_text(json.dumps({"weight_map": {"a": "a.safetensors"}}))
    checkpoint = load_checkpoint(untrusted)
    with pytest.raises(ModelFormatError, match=r"b\.safetensors: this link leads out"):
        checkpoint.sha256()

    (untrusted / "b.safetensors").unlink()
    rewrite(untrusted / METADATA, target="rich", task="regression")
    (untrusted / HEAD).symlink_to("../other/head.safetensors")
    (untrusted.parent / "other").mkdir()
    save_file({"linear.bias": torch.zeros(1)}, untrusted.parent / "other" / HEAD)
    with pytest.raises(ModelFormatError, match=r"head\.safetensors: this link leads out"):
        load_checkpoint(untrusted)


@pytest.mark.promise(18)
def test_links_within_a_directory_and_within_the_hubs_cache_are_followed(tiny_model, tmp_path):
    snapshot, blobs = (
        tmp_path / "models--owner--model" / "snapshots" / "c0ffee",
        tmp_path / "models--owner--model/blobs",
    )
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(tiny_model.iterdir()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    (tmp_path / "cache").symlink_to(tmp_path / "models--owner--model")

    for directory in (snapshot, tmp_path / "cache" / "snapshots" / "c0ffee"):
        assert load_checkpoint(directory).sha256() == load_checkpoint(tiny_model).sha256()

    # A blob that is itself a link is no blob of the cache.
    (blobs / "evil").symlink_to("/etc/passwd")
    (snapshot / METADATA).unlink()
    (snapshot / METADATA).symlink_to("../../blobs/evil")
    with pytest.raises(ModelFormatError, match="leads out"):
        load_checkpoint(snapshot)


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x\0y", "\x1b[2J"])
def test_shards_with_hostile_names_are_an_error(untrusted, name):
    shutil.copy(untrusted / WEIGHTS, untrusted.parent / "x.safetensors")
    (untrusted / WEIGHTS).unlink()
    (untrusted / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))

    with pytest.raises(ModelFormatError, match="shards must lie beside their index|leads out"):
        load_checkpoint(untrusted)


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", ["config.json", METADATA, WEIGHTS])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_pipes_and_devices_are_an_error_and_do_not_hang(untrusted, name, make):
    (untrusted / name).unlink()
    make(untrusted / name)

    with pytest.raises(ModelFormatError, match="this is not a regular file"):
        load_checkpoint(untrusted)


def test_a_folder_among_the_tensors_is_a_user_error(untrusted):
    (untrusted / "zzz.safetensors").mkdir()

    with pytest.raises(ModelFormatError, match="this is not a regular file"):
        load_checkpoint(untrusted).sha256()


# Nothing fills the memory


def with_head(directory, tensors, **changes):
    rewrite(directory / METADATA, **{"target": "rich", "task": "classification", "classes": ["a", "b"]} | changes)
    save_file(tensors, directory / HEAD)


def with_dtype(dtype):
    return lambda directory: save_file(
        {name: value.to(dtype) for name, value in load_file(directory / WEIGHTS).items()}, directory / WEIGHTS
    )


def retyped(dtype, times):
    """Declare another dtype for every tensor, with as many values as its bytes hold in it."""

    def change(directory):
        content = (directory / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        for name in header.keys() - {"__metadata__"}:
            header[name] |= {"dtype": dtype, "shape": [times * int(np.prod(header[name]["shape"]))]}
        write_safetensors(directory / WEIGHTS, header, content[8 + length :])

    return change


def with_header(header, data=b"", name=WEIGHTS):
    return lambda directory: write_safetensors(directory / name, header, data)


def with_config(**changes):
    return lambda directory: rewrite(directory / "config.json", **changes)


def with_record(**changes):
    return lambda directory: rewrite(directory / METADATA, **changes)


def with_text(name, text):
    return lambda directory: (directory / name).write_text(text)


def with_layers_of_names_alone(num_layers):
    def change(directory):
        prefix = format_of(read_shape(directory)).layer_prefix
        names = [f"{prefix}{layer}.a" for layer in range(num_layers)]
        write_safetensors(directory / WEIGHTS, describe(names))
        rewrite(directory / "config.json", num_hidden_layers=num_layers)

    return change


def with_a_long_header(directory):
    ones = b"1," * 49_000_000
    write_safetensors(
        directory / WEIGHTS, b'{"a":{"dtype":"F32","shape":[' + ones + b'1],"data_offsets":[0,4]}}', b"abcd"
    )


HOSTILE = {
    "a billion layers": with_config(num_hidden_layers=10**9),
    "no number of layers": with_config(num_hidden_layers=10**400),
    "a negative width": with_config(hidden_size=-32),
    "an absurd width": with_config(hidden_size=999_936),
    "an absurd number of heads": with_config(num_attention_heads=999_999),
    "a fraction of a head": with_config(num_attention_heads=0.5),
    "a list for a type": with_config(model_type=["esm"]),
    "a list for a word": with_config(hidden_act=["gelu"]),
    "half of a character": with_config(model_type="\ud800"),
    "a config of brackets": with_text("config.json", "[" * 200_000),
    "metadata of braces": with_text(METADATA, '{"a":' * 100_000),
    "a large config": with_text("config.json", '{"x":[' + "[]," * 2_000_000 + "0]}"),
    "a config of many lists": with_text("config.json", '{"x":[' + "[]," * 1_300_000 + "0]}"),
    "an absurd window": with_record(window_residues=10**30),
    "a window of nothing": with_record(window_residues=0),
    "a layer that is not there": with_record(layer=99),
    "many poolings": with_record(pooling=",".join(["mean"] * 1_000_000)),
    "metrics that are none": with_record(metrics=[1]),
    "a configuration that is none": with_record(configuration="x"),
    "a fingerprint that is none": with_record(corpus_fingerprint={}),
    "a list for a task": with_record(task=["regression"]),
    "no classes": lambda directory: with_head(
        directory, {"linear.weight": torch.ones(0, 32), "linear.bias": torch.ones(0)}, classes=[]
    ),
    "a header of 98 MB": with_a_long_header,
    "a header without end": lambda directory: (directory / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "a header of sixty thousand layers": with_layers_of_names_alone(60_000),
    "a header of thirty thousand layers": with_layers_of_names_alone(30_000),
    "overlapping tensors": with_header(
        describe(["a"], shape=(2,), offsets=(0, 8)) | describe(["b"], shape=(2,), offsets=(4, 12)), bytes(12)
    ),
    "a hole between tensors": with_header(
        describe(["a"], shape=(2,), offsets=(0, 8)) | describe(["b"], shape=(2,), offsets=(12, 20)), bytes(20)
    ),
    "offsets beyond the file": with_header(describe(["a"], shape=(2**40,), offsets=(0, 2**42)), bytes(8)),
    "a shape that overflows": with_header(describe(["a"], shape=(2**40, 2**40), offsets=(0, 8)), bytes(8)),
    "an unknown type": retyped("F99", 1),
    "half bytes": retyped("F4", 8),
    "exponents": retyped("F8_E8M0", 4),
    "whole numbers": with_dtype(torch.int64),
    "bytes": with_dtype(torch.uint8),
    "truths": with_dtype(torch.bool),
    "complex numbers": with_dtype(torch.complex64),
    "a head of whole numbers": lambda directory: with_head(directory, {"linear.bias": torch.ones(2).long()}),
    "a head of a number": lambda directory: with_head(directory, {"hidden.bias": torch.ones(())}),
    "a head that is wider than its file": lambda directory: with_head(
        directory, {"hidden.bias": torch.zeros(20_000_000)}
    ),
    "a head of more classes than it has numbers": lambda directory: with_head(
        directory, {"linear.bias": torch.zeros(1)}, classes=["a"] * 1_000_000, pooling="mean,max,std"
    ),
    "a head of another width": lambda directory: with_head(directory, {"query": torch.zeros(7)}),
    "a head of many names": lambda directory: with_head(directory, {f"a{n}": torch.zeros(1) for n in range(9_000)}),
}
LOAD_ALL = """
import json, shutil, sys
from pathlib import Path
from protembed.errors import ProtembedError
from protembed.model.checkpoint import load_checkpoint

def peak_bytes():
    if sys.platform == "linux":  # getrusage would also count the memory of the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for name in sys.argv[1:]:
    try:
        load_checkpoint(Path(name)).sha256()
        outcome = [0, "no error"]
    except ProtembedError as error:
        outcome = [error.exit_status, str(error)]
    except BaseException as error:
        outcome = [None, repr(error)]
    shutil.rmtree(name)
    print(json.dumps([name, *outcome, peak_bytes()]), flush=True)
"""


@pytest.mark.promise(18)
def test_hostile_models_are_one_line_errors_in_under_two_gigabytes_of_memory(family_model, tmp_path):
    names = []
    for number, (name, change) in enumerate(HOSTILE.items()):
        directory = shutil.copytree(family_model, tmp_path / f"{number} {name}")
        change(directory)
        names.append(str(directory))

    result = subprocess.run([sys.executable, "-c", LOAD_ALL, *names], capture_output=True, text=True, timeout=120)
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]

    assert result.stderr == ""
    assert [name for name, *_ in outcomes] == names
    assert [line for line in outcomes if line[1] not in (65, 66)] == []
    assert [line for line in outcomes if len(line[2]) > 1000 or "\n" in line[2]] == []
    assert outcomes[-1][3] < 2 << 30
