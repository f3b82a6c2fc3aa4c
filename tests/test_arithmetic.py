import json
import os
import subprocess
import sys
from contextlib import contextmanager
from threading import Barrier, Thread

import pytest
import torch

from protembed.config.common import DeviceConfig
from protembed.config.embed import EmbedOptions
from protembed.device import WorkerPool, choose_device, exact_float32
from protembed.embedding.embed import embed_fasta
from protembed.errors import ConfigError
from protembed.model.checkpoint import load_checkpoint, new_checkpoint


def flushes_denormals():
    return (torch.full((), 1e-40, dtype=torch.float32, device="cpu") * 1).item() == 0


def precision_of_products():
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


def matmul_precision():
    return torch.get_float32_matmul_precision(), *precision_of_products()


def deterministic():
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def set_precision(module, value):
    module.fp32_precision = value


@contextmanager
def setting(change, undo):
    change()
    try:
        yield
    finally:
        undo()


def reset_products():
    torch.set_float32_matmul_precision("highest")
    torch.backends.fp32_precision = "none"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


def product_setting(change):
    return lambda: setting(change, reset_products)


# Settings of a caller: a context that changes one, a function that reads it, its value while protembed computes.
SETTINGS = {
    "matmul precision medium": (
        product_setting(lambda: torch.set_float32_matmul_precision("medium")),
        matmul_precision,
        ("highest", "ieee", "ieee"),
    ),
    "matmul precision high": (
        product_setting(lambda: torch.set_float32_matmul_precision("high")),
        matmul_precision,
        ("highest", "ieee", "ieee"),
    ),
    "bfloat16 in oneDNN": (
        product_setting(lambda: set_precision(torch.backends.mkldnn.matmul, "bf16")),
        precision_of_products,
        ("ieee", "ieee"),
    ),
    "tf32 in oneDNN": (
        product_setting(lambda: set_precision(torch.backends.mkldnn.matmul, "tf32")),
        precision_of_products,
        ("ieee", "ieee"),
    ),
    "tf32 in cuBLAS": (
        product_setting(lambda: set_precision(torch.backends.cuda.matmul, "tf32")),
        precision_of_products,
        ("ieee", "ieee"),
    ),
    "tf32 everywhere": (
        product_setting(lambda: set_precision(torch.backends, "tf32")),
        precision_of_products,
        ("ieee", "ieee"),
    ),
    "allow_tf32": (
        product_setting(lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True)),
        matmul_precision,
        ("highest", "ieee", "ieee"),
    ),
    "default dtype bfloat16": (
        lambda: setting(
            lambda: torch.set_default_dtype(torch.bfloat16), lambda: torch.set_default_dtype(torch.float32)
        ),
        torch.get_default_dtype,
        torch.float32,
    ),
    "default dtype float64": (
        lambda: setting(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
        torch.get_default_dtype,
        torch.float32,
    ),
    "default device": (
        lambda: setting(lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
        torch.get_default_device,
        torch.device("cpu"),
    ),
    "device of a block": (lambda: torch.device("meta"), torch.get_default_device, torch.device("cpu")),
    "autocast": (
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.is_autocast_enabled("cpu"),
        False,
    ),
    "inference mode": (torch.inference_mode, torch.is_inference_mode_enabled, False),
    "flushed denormals": (
        lambda: setting(lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)),
        flushes_denormals,
        False,
    ),
    "deterministic algorithms": (
        lambda: setting(
            lambda: torch.use_deterministic_algorithms(True, warn_only=True),
            lambda: torch.use_deterministic_algorithms(False),
        ),
        deterministic,
        (False, False),
    ),
}
parametrize = pytest.mark.parametrize("name", SETTINGS)


@parametrize
def test_a_callers_settings_are_reset_while_computing_and_restored_afterwards(name):
    make, read, expected = SETTINGS[name]
    with make():
        before = read()
        assert before != expected

        with WorkerPool(1) as pool:
            with exact_float32():
                assert read() == expected
            assert read() == expected
            assert next(pool.map(lambda _: read(), [0])) == expected
        assert read() == before


@pytest.fixture(scope="module")
def embed_bytes(tiny_model, proteins_fasta, tmp_path_factory):
    """Embed forty proteins; return the bytes of the result and its meta file."""
    output = tmp_path_factory.mktemp("embedded") / "rows.npy"

    def run():
        embed_fasta(
            [proteins_fasta],
            EmbedOptions.from_values(model=tiny_model, output=output, force=True),
        )
        return output.read_bytes(), output.with_name("rows.meta.json").read_bytes()

    return run


@parametrize
def test_embed_gives_the_same_bytes_under_any_settings_of_the_caller(embed_bytes, name):
    make, read, _ = SETTINGS[name]
    expected = embed_bytes()
    with make():
        before = read()

        assert embed_bytes() == expected
        assert read() == before


@parametrize
def test_a_new_model_has_the_same_weights_under_any_settings_of_the_caller(tiny_checkpoint, name):
    make, *_ = SETTINGS[name]
    with make():
        checkpoint = new_checkpoint(tiny_checkpoint.encoder.shape, "gaussian", seed=0)

    for weight, expected in zip(checkpoint.encoder.parameters(), tiny_checkpoint.encoder.parameters(), strict=True):
        assert weight.requires_grad
        assert not weight.is_inference()
        assert torch.equal(weight, expected)


def test_an_inherited_precision_of_a_library_is_inherited_again_after_the_block():
    with setting(lambda: set_precision(torch.backends, "tf32"), reset_products):
        with exact_float32():
            pass
        torch.backends.fp32_precision = "none"

        assert precision_of_products() == ("none", "none")


def test_a_block_that_ends_does_not_change_the_precision_of_a_block_in_another_thread():
    both_began, first_ended, precisions = Barrier(2, timeout=30), Barrier(2, timeout=30), []

    def second():
        with exact_float32():
            both_began.wait()
            first_ended.wait()
            precisions.append(torch.get_float32_matmul_precision())

    with setting(lambda: torch.set_float32_matmul_precision("medium"), reset_products):
        thread = Thread(target=second)
        with exact_float32():
            thread.start()
            both_began.wait()
        first_ended.wait()
        thread.join()

        assert precisions == ["highest"]
        assert torch.get_float32_matmul_precision() == "medium"


# The environment


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
@pytest.mark.parametrize("value", ["BF16", "bf16", "F16", "TF32", "ANY"])
def test_an_environment_variable_that_lowers_cpu_precision_is_a_usage_error_naming_it(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=f"{name} is '?{value}'?, but .* unset it") as caught:
        choose_device(DeviceConfig(device="cpu"))

    assert caught.value.exit_status == 2


@pytest.mark.parametrize("value", ["", "STRICT", "strict", "0"])
def test_an_environment_variable_that_does_not_lower_the_precision_is_accepted(monkeypatch, value):
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", value)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # of GPUs

    assert choose_device(DeviceConfig(device="cpu")) == torch.device("cpu")


def test_an_environment_variable_that_lowers_gpu_precision_is_a_usage_error_on_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")

    with pytest.raises(ConfigError, match="NVIDIA_TF32_OVERRIDE"):
        choose_device(DeviceConfig(device="cuda"))


STATE_SCRIPT = """
import json, os, sys
import torch
import protembed.device
from protembed.device import exact_float32
def state():
    return [os.environ.get("MKL_CBWR"), torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision]
states = [state()]
with exact_float32():
    states.append(state())
print(json.dumps([*states, state()]))
"""


@pytest.mark.parametrize(("value", "used"), [(None, "AUTO"), ("COMPATIBLE", "COMPATIBLE")])
def test_importing_protembed_sets_nothing_and_computing_sets_only_mkl(value, used):
    environment = {name: os.environ[name] for name in os.environ if name != "MKL_CBWR"}
    environment |= {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} | ({} if value is None else {"MKL_CBWR": value})
    result = subprocess.run([sys.executable, "-c", STATE_SCRIPT], env=environment, capture_output=True, text=True)

    assert result.stderr == ""
    assert json.loads(result.stdout) == [
        [value, "high", "tf32"],
        [used, "highest", "ieee"],
        [used, "high", "tf32"],
    ]


@pytest.mark.parametrize(("value", "used"), [("", "AUTO"), ("OFF", "AUTO"), ("AVX2", "AVX2")])
def test_the_mkl_mode_is_set_only_where_the_user_has_set_none(monkeypatch, value, used):
    monkeypatch.setenv("MKL_CBWR", value)

    with exact_float32():
        assert os.environ["MKL_CBWR"] == used


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ONEDNN_DEFAULT_FPMATH_MODE", ["embed", "-m", "MODEL", "-o", "x.npy"]),
        ("DNNL_DEFAULT_FPMATH_MODE", ["pretrain", "--steps", "1", "-o", "x.run"]),
    ],
)
def test_the_command_reports_a_lowered_precision_in_one_line(tiny_model, proteins_fasta, tmp_path, name, command):
    task, *flags = (str(tiny_model) if word == "MODEL" else word for word in command)
    command = [sys.executable, "-m", "protembed", task, str(proteins_fasta), *flags, "--device", "cpu"]
    environment = os.environ | {name: "BF16"}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert result.returncode == 2
    assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_loaded_in_float32_under_any_default_dtype(tiny_model):
    with setting(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)):
        checkpoint = load_checkpoint(tiny_model)

    assert {value.dtype for value in checkpoint.encoder.state_dict().values()} == {torch.float32}
