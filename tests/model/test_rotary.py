import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.config.model_sizes import ESM2Shape
from protembed.config.pretrain import PretrainConfig
from protembed.data.alphabet import CLS, EOS, encode
from protembed.errors import ModelFormatError
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint, write_checkpoint_files
from protembed.model.encoder import inverse_frequencies
from protembed.pretraining.initial_model import initial_model

# Heads of sixteen coordinates, as ESM-2's small models have.
SHAPE = ESM2Shape(num_layers=3, dim=64, num_heads=4)
EXACT = inverse_frequencies(SHAPE)
ROUNDED = EXACT.half().float()
OF_LAYER = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
PER_LAYER = tuple(map(OF_LAYER.format, range(SHAPE.num_layers)))
PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDG" * 24


def store_frequencies(directory, frequencies, names=PER_LAYER):
    """Replace the stored frequencies, under the given names; remove them if there are none."""
    path = directory / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if "inv_freq" not in name}
    save_file(tensors | {name: frequencies.clone() for name in names}, path, metadata={"format": "pt"})
    return directory


def stored_frequencies(directory):
    return {name: value for name, value in load_file(directory / "model.safetensors").items() if "inv_freq" in name}


@pytest.fixture(scope="module")
def published(make_esm, tmp_path_factory):
    """A directory with frequencies rounded to float16 in training, under the names of the published ones."""
    directory = tmp_path_factory.mktemp("models") / "as_published"
    model = make_esm(SHAPE)
    with torch.no_grad():
        # Trained attention is sharp: of almost even attention it hardly matters how far positions are turned.
        for layer in model.esm.encoder.layer:
            layer.attention.self.query.weight.mul_(6)
            layer.attention.self.key.weight.mul_(6)
    model.save_pretrained(directory)
    return store_frequencies(directory, ROUNDED)


@pytest.fixture
def model(published, tmp_path):
    """A copy of the published model for changes."""
    return shutil.copytree(published, tmp_path / "model")


def reference_model(directory):
    transformers = pytest.importorskip("transformers")
    return transformers.EsmForMaskedLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def assert_near(computed, expected):
    # Of the largest value: a small one is a sum of large ones.
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))


def as_half(directory, dtype):
    path = directory / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))


# What is computed


def test_frequencies_rounded_to_float16_differ_from_exact_ones():
    assert EXACT[1].item() == pytest.approx(0.3162277, abs=1e-7)
    assert ROUNDED[1].item() == pytest.approx(0.3161621, abs=1e-7)


@pytest.mark.promise(11)
@pytest.mark.parametrize("num_residues", [66, 1022])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"])
@torch.no_grad()
def test_a_model_with_rounded_frequencies_computes_as_in_transformers(model, dtype, num_residues):
    if dtype is not None:
        as_half(model, dtype)
    checkpoint, reference = load_checkpoint(model), reference_model(model)
    tokens = torch.tensor([CLS, *encode(PROTEIN[:num_residues]), EOS])
    layout = checkpoint.encoder.layout(torch.tensor([0, len(tokens)]))
    expected = reference(tokens[None], output_hidden_states=True, output_attentions=True)

    states = list(checkpoint.encoder.hidden_states(tokens, layout))
    maps = [of_layer[0] for of_layer in checkpoint.encoder.attention_maps(tokens, layout)]

    for hidden, reference_weights in zip(states, expected.hidden_states, strict=True):
        assert_near(hidden, reference_weights[0])
    for weights, reference_weights in zip(maps, expected.attentions, strict=True):
        assert_near(weights, reference_weights[0])
    assert checkpoint.lm_head is not None
    assert_near(checkpoint.lm_head(states[-1], checkpoint.encoder.embedding.weight), expected.logits[0])
    contacts = reference.predict_contacts(tokens[None], torch.ones_like(tokens[None]))[0]
    assert_near(checkpoint.contact_head(torch.stack(maps)[..., 1:-1, 1:-1]), contacts)


@torch.no_grad()
def test_exact_frequencies_instead_of_rounded_ones_change_the_hidden_states(model):
    tokens = torch.tensor([CLS, *encode(PROTEIN[:1022]), EOS])
    states = []
    for frequencies in (ROUNDED, EXACT):
        encoder = load_checkpoint(store_frequencies(model, frequencies)).encoder
        states.append(encoder(tokens, encoder.layout(torch.tensor([0, len(tokens)]))))

    assert (states[0] - states[1]).abs().max() > 1e-3


# What is read


@pytest.mark.parametrize(
    "names",
    [
        PER_LAYER,
        PER_LAYER[:1],
        [OF_LAYER.format("*")],
        ["esm.rotary_embeddings.inv_freq"],
        [*PER_LAYER, "esm.rotary_embeddings.inv_freq"],
    ],
    ids=["in each layer", "in one layer", "by a star", "above the layers", "everywhere"],
)
def test_frequencies_are_read_under_every_name_in_transformers(model, names):
    store_frequencies(model, ROUNDED, names)

    assert torch.equal(load_checkpoint(model).encoder.inverse_frequencies, ROUNDED)
    assert torch.equal(reference_model(model).esm.rotary_embeddings.inv_freq, ROUNDED)


def test_exact_frequencies_are_computed_where_none_are_stored(model):
    store_frequencies(model, ROUNDED, [])

    assert torch.equal(load_checkpoint(model).encoder.inverse_frequencies, EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_frequencies_of_any_precision_are_read_and_kept_in_float32(model, dtype):
    store_frequencies(model, EXACT.to(dtype))
    encoder = load_checkpoint(model).encoder

    encoder.set_compute_dtype(torch.bfloat16)

    assert encoder.inverse_frequencies.dtype == torch.float32
    assert torch.equal(encoder.inverse_frequencies, EXACT.to(dtype).float())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda values: values.index_fill(0, torch.tensor([2]), float("nan")), "values that are not finite"),
        (lambda values: values.index_fill(0, torch.tensor([2]), float("inf")), "values that are not finite"),
        (lambda values: values.index_fill(0, torch.tensor([2]), 0.0), "values that are not positive"),
        (lambda values: -values, "values that are not positive"),
        (lambda values: values[:4], r"has shape \(4,\), not \(8,\)"),
        (lambda values: values.repeat(2), r"has shape \(16,\), not \(8,\)"),
        (lambda values: values.reshape(2, 4), r"has shape \(2, 4\), not \(8,\)"),
        (lambda values: values.nextafter(torch.ones(8)), "differ from those of"),
        (lambda values: values.long(), "is of type I64"),
    ],
    ids=["nan", "infinite", "zero", "negative", "few", "many", "square", "another in one layer", "whole numbers"],
)
def test_invalid_stored_frequencies_are_an_error_that_names_them(model, change, found):
    path = model / "model.safetensors"
    tensors = load_file(path)
    tensors[PER_LAYER[1]] = change(tensors[PER_LAYER[1]]).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(ModelFormatError, match=found) as caught:
        load_checkpoint(model)

    assert PER_LAYER[1] in str(caught.value)


# What is written


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saving_a_model_keeps_the_bits_of_its_frequencies_in_every_layer(published, tmp_path, dtype, capfd):
    write_checkpoint_files(load_checkpoint(published), tmp_path, "# card\n", dtype=dtype)

    stored = stored_frequencies(tmp_path)
    assert set(stored) == set(PER_LAYER)
    assert all(values.dtype == torch.float32 and torch.equal(values, ROUNDED) for values in stored.values())
    assert torch.equal(load_checkpoint(tmp_path).encoder.inverse_frequencies, ROUNDED)
    transformers = pytest.importorskip("transformers")
    back, facts = transformers.EsmForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(facts.values())
    assert torch.equal(back.esm.rotary_embeddings.inv_freq, ROUNDED)
    assert capfd.readouterr() == ("", "")


def test_pretraining_from_a_model_keeps_its_frequencies(published, tmp_path):
    started = initial_model(PretrainConfig(init_from=published), crop_residues=64)

    save_checkpoint(started, tmp_path / "model", "# card\n")

    assert all(torch.equal(values, ROUNDED) for values in stored_frequencies(tmp_path / "model").values())


def test_a_new_model_has_exact_frequencies_and_stores_them(tmp_path):
    save_checkpoint(new_checkpoint(SHAPE, "gaussian", seed=0), tmp_path / "model", "# card\n")

    assert all(torch.equal(values, EXACT) for values in stored_frequencies(tmp_path / "model").values())


def test_the_hash_of_a_model_depends_on_its_frequencies(model):
    rounded = load_checkpoint(model).sha256()

    assert load_checkpoint(store_frequencies(model, EXACT)).sha256() != rounded
