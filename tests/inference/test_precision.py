import pytest

from protembed import device
from protembed.config.common import DeviceConfig
from protembed.config.model_sizes import SIZES
from protembed.inference.precision import describe_faster_precision, resolve_precision
from protembed.io.result import Result
from protembed.io.writing import write_json

CPU = DeviceConfig(device="cpu")


@pytest.fixture
def recorded(tmp_path):
    """Make a result whose record has a precision that an option meant."""

    def make(given, meant, *, force=False, name="emb.meta.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"options": {"precision": given}, "precision": meant})
        return Result(tmp_path / "emb.npy", [], force=force)

    return make


@pytest.fixture
def nothing(tmp_path):
    return Result(tmp_path / "emb.npy", [])


def test_a_requested_precision_is_used(recorded):
    assert resolve_precision("float16", recorded("auto", "bfloat16"), CPU) == "float16"


def test_auto_is_float32_without_a_gpu_and_for_a_fine_tuned_model(nothing):
    assert resolve_precision("auto", nothing, CPU) == "float32"
    assert resolve_precision("auto", nothing, DeviceConfig(), is_finetuned=True) == "float32"


@pytest.mark.parametrize("name", ["emb.meta.json", "emb.npy.partial/fingerprint.json"])
def test_auto_is_what_it_was_when_the_same_command_began_on_another_machine(recorded, name):
    assert resolve_precision("auto", recorded("auto", "bfloat16", name=name), CPU) == "bfloat16"


def test_auto_is_not_what_another_command_requested(recorded):
    assert resolve_precision("auto", recorded("float16", "float16"), CPU) == "float32"


def test_force_forgets_what_auto_was(recorded):
    assert resolve_precision("auto", recorded("auto", "bfloat16", force=True), CPU) == "float32"


def test_bfloat16_is_suggested_for_long_computations_on_cpus_with_amx(monkeypatch):
    for has_amx in (True, False):
        monkeypatch.setattr(device, "has_amx", lambda has_amx=has_amx: has_amx)

        note = describe_faster_precision(SIZES["t6_8M"], 10_000_000, num_threads=2)

        assert (note is not None) == has_amx
    monkeypatch.setattr(device, "has_amx", lambda: True)
    assert describe_faster_precision(SIZES["t6_8M"], 1_000, num_threads=2) is None
    note = describe_faster_precision(SIZES["t33_650M"], 100_000, num_threads=2)
    assert note == "on this CPU, --precision bfloat16 is about 2 times as fast; its vectors differ slightly"
