import pytest
import torch

from protembed.callbacks import Callbacks
from protembed.config.common import InferenceDeviceConfig, ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.config.model_sizes import SIZES
from protembed.embedding.embed import embed_fasta
from protembed.embedding.estimate import plan_embedding
from protembed.inference import loading
from protembed.inference.loading import is_offloaded, load_for_inference, needed_memory
from protembed.model.catalog import locate_model

CPU = torch.device("cpu")
AUTO = InferenceDeviceConfig(device="cpu")


@pytest.fixture
def memory(monkeypatch):
    """Set the memory of the machine, in bytes."""
    return lambda num_bytes: monkeypatch.setattr(loading, "total_memory", lambda device: num_bytes)


@pytest.mark.parametrize(
    ("size", "precision", "num_bytes", "expected"),
    [
        ("t36_3B", torch.float32, 8e9, True),
        ("t36_3B", torch.float32, 16e9, False),
        ("t36_3B", torch.bfloat16, 8e9, False),
        ("t48_15B", torch.bfloat16, 24e9, True),
        ("t6_8M", torch.float32, 5e8, False),
    ],
)
def test_auto_offloads_a_large_model_that_does_not_fit(memory, size, precision, num_bytes, expected):
    memory(num_bytes)

    assert is_offloaded(AUTO, SIZES[size], precision, CPU) is expected


def test_always_and_never_do_not_depend_on_the_memory(memory):
    memory(8e9)
    large, small = SIZES["t48_15B"], SIZES["t6_8M"]

    assert is_offloaded(InferenceDeviceConfig(offload="always"), small, torch.float32, CPU)
    assert not is_offloaded(InferenceDeviceConfig(offload="never"), large, torch.float32, CPU)


def test_the_needed_memory_holds_the_weights_in_their_precision():
    shape = SIZES["t36_3B"]
    whole, half = (needed_memory(shape, precision, CPU) for precision in (torch.float32, torch.bfloat16))

    assert whole - half == 2 * shape.num_parameters


def test_a_model_that_is_offloaded_is_announced_in_one_sentence(tiny_model):
    notes = []
    compute = InferenceDeviceConfig(device="cpu", offload="always")

    checkpoint = load_for_inference(locate_model(tiny_model), compute, torch.float32, Callbacks(on_note=notes.append))

    assert checkpoint.offloaded is not None
    (note,) = notes
    assert note.startswith("computing layer by layer (as requested with --offload always)")


def test_a_model_in_memory_is_not_announced(tiny_model):
    notes = []

    checkpoint = load_for_inference(locate_model(tiny_model), AUTO, torch.float32, Callbacks(on_note=notes.append))

    assert (checkpoint.offloaded, notes) == (None, [])


def options_of(model, output, offload):
    return EmbedOptions(
        model=ModelConfig(model),
        embedding=EmbedConfig(output=output),
        compute=InferenceDeviceConfig(device="cpu", offload=offload),
    )


def test_a_result_is_the_same_with_and_without_offloading(tiny_model, proteins_fasta, tmp_path):
    for offload in ("never", "always"):
        embed_fasta(proteins_fasta, options_of(tiny_model, tmp_path / f"{offload}.npy", offload))

    never, always = ((tmp_path / f"{name}.npy").read_bytes() for name in ("never", "always"))
    assert never == always
    assert (tmp_path / "never.meta.json").read_text() == (tmp_path / "always.meta.json").read_text()


def test_another_offload_finds_the_result_done(tiny_model, proteins_fasta, tmp_path):
    embed_fasta(proteins_fasta, options_of(tiny_model, tmp_path / "emb.npy", "always"))

    assert embed_fasta(proteins_fasta, options_of(tiny_model, tmp_path / "emb.npy", "never")).was_done


def test_an_estimate_says_that_the_model_is_computed_layer_by_layer(tiny_model, proteins_fasta, tmp_path):
    plans = [
        plan_embedding(proteins_fasta, options_of(tiny_model, tmp_path / "emb.npy", offload))
        for offload in ("never", "always")
    ]

    assert plans[0].notes == []
    assert "layer by layer" in plans[1].notes[0]
    assert plans[1].seconds > 0
