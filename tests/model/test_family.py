"""ESM-C, ESM-1b and ESM-1v against transformers' own classes, with random weights in float32."""

import pytest
import torch

from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.data.alphabet import CLS, EOS, encode
from protembed.errors import ConfigError
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint
from protembed.model.formats import config_json, format_of

SHAPES = {
    "ESM-C": ESMCShape(num_layers=2, dim=64, num_heads=4),
    "ESM-C, another": ESMCShape(num_layers=3, dim=96, num_heads=6),
    "ESM-1b": ESM2Shape(num_layers=3, dim=64, num_heads=4, num_positions=1024, has_embedding_norm=True),
    "ESM-1v": ESM2Shape(num_layers=2, dim=64, num_heads=4, num_positions=1024),
}
DEEP = {"ESM-C 300M": ESMCShape(num_layers=30, dim=960, num_heads=15)}
# Unequal lengths, masked positions, one residue, residues beside the 20, the longest window of learned positions.
SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "M", "MK?AXBZUO" * 20, "MKTAYIAKQR?" * 92 + "MKTAYIAKQR"]
# At 30 layers each token takes as long as hundreds of a small model.
FEW_TOKENS = [*SEQUENCES[:2], "MK?AXBZUO" * 5]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", params=SHAPES)
def saved(request, tmp_path_factory):
    """A directory that transformers saved, and the model in it, with its biases and LayerNorms at random."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    shape = (SHAPES | DEEP)[request.param]
    config = transformers.AutoConfig.for_model(**config_json(shape))
    torch.manual_seed(0)
    model = getattr(transformers, format_of(shape).class_name)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    directory = tmp_path_factory.mktemp("saved")
    model.save_pretrained(directory)
    return directory, model


def results_of(directory, sequences):
    """Compute proteins in one packed batch; return tokens, hidden states and logits of each, and attention by layer."""
    checkpoint = load_checkpoint(directory)
    tokens = [torch.tensor([CLS, *encode(sequence), EOS]) for sequence in sequences]
    lengths = [len(protein) for protein in tokens]
    with torch.inference_mode():
        layout = checkpoint.encoder.layout(torch.tensor([0, *lengths]).cumsum(0))
        states = list(checkpoint.encoder.hidden_states(torch.cat(tokens), layout))
        attention = list(checkpoint.encoder.attention_maps(torch.cat(tokens), layout))
        logits = checkpoint.lm_head(states[-1], checkpoint.encoder.embedding.weight)
    split = [layer.split(lengths) for layer in states]
    return tokens, [list(layers) for layers in zip(*split, strict=True)], logits.split(lengths), attention


@pytest.fixture(scope="module")
def ours(saved):
    """The results of the model as protembed reads it."""
    return results_of(saved[0], SEQUENCES)


@torch.no_grad()
def oracle(model, tokens):
    """Compute one protein with transformers."""
    mask = torch.ones(1, len(tokens), dtype=torch.long)
    return model(tokens[None], mask, output_hidden_states=True, output_attentions=True)


@pytest.mark.promise(11)
@pytest.mark.parametrize("number", range(len(SEQUENCES)))
def test_every_layer_and_the_logits_and_attention_equal_those_of_transformers(saved, ours, number):
    tokens, states, logits, attention = ours

    theirs = oracle(saved[1], tokens[number])

    for ours_of_layer, theirs_of_layer in zip(states[number], theirs.hidden_states, strict=True):
        torch.testing.assert_close(ours_of_layer, theirs_of_layer[0], **CLOSE)
    for maps, theirs_of_layer in zip(attention, theirs.attentions, strict=True):
        torch.testing.assert_close(maps[number], theirs_of_layer[0], **CLOSE)
    torch.testing.assert_close(logits[number], theirs.logits[0], **CLOSE)


@pytest.mark.slow
@pytest.mark.promise(11)
@pytest.mark.parametrize("saved", DEEP, indirect=True)
def test_at_the_shape_of_esmc_300m_results_equal_those_of_transformers(saved):
    tokens, states, logits, attention = results_of(saved[0], FEW_TOKENS)

    for number, protein in enumerate(tokens):
        theirs = oracle(saved[1], protein)

        torch.testing.assert_close(states[number][-1], theirs.hidden_states[-1][0], **CLOSE)
        torch.testing.assert_close(logits[number], theirs.logits[0], **CLOSE)
        for maps, theirs_of_layer in zip(attention, theirs.attentions, strict=True):
            torch.testing.assert_close(maps[number], theirs_of_layer[0], **CLOSE)
        for ours_of_layer, theirs_of_layer in zip(states[number], theirs.hidden_states, strict=True):
            # Of the largest value, which is about ten: over 30 layers the residual stream is rounded so often that
            # transformers' is 1.2e-5 from its own values in float64, and this one 1.6e-5.
            scale = max(1.0, theirs_of_layer.abs().max().item())
            torch.testing.assert_close(ours_of_layer, theirs_of_layer[0], rtol=1e-5, atol=1e-5 * scale)


def test_the_number_of_parameters_follows_from_the_shape(saved):
    checkpoint = load_checkpoint(saved[0])

    assert checkpoint.encoder.shape.num_parameters == checkpoint.num_parameters


def test_transformers_loads_what_protembed_saves_without_a_report(saved, tmp_path, capfd):
    model = saved[1]
    save_checkpoint(load_checkpoint(saved[0]), tmp_path / "model")

    again, report = type(model).from_pretrained(tmp_path / "model", output_loading_info=True)

    assert not any(report.values())
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in again.state_dict().items())


def test_the_tokenizer_that_protembed_saves_has_the_ids_of_the_alphabet(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_checkpoint(load_checkpoint(saved[0]), tmp_path / "model")

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")

    assert tokenizer("MKXBZUO")["input_ids"] == [CLS, *encode("MKXBZUO"), EOS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_lm_head", [True, False])
def test_shards_in_any_precision_with_and_without_the_masked_lm_head_are_read(saved, tmp_path, dtype, has_lm_head):
    directory, model = saved
    stored = type(model).from_pretrained(directory, dtype=dtype)
    (stored if has_lm_head else stored.base_model).save_pretrained(tmp_path, max_shard_size="100kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2

    checkpoint, whole = load_checkpoint(tmp_path), load_checkpoint(directory)

    assert (checkpoint.lm_head is not None) == has_lm_head
    for part in ("encoder", "lm_head") if has_lm_head else ("encoder",):
        state = getattr(checkpoint, part).state_dict()
        for name, value in getattr(whole, part).state_dict().items():
            assert torch.equal(state[name], value.to(dtype).float()), name


@pytest.mark.parametrize("name", SHAPES)
def test_reading_in_half_precision_equals_converting_after_reading(name, tmp_path):
    save_checkpoint(new_checkpoint(SHAPES[name], "gaussian", seed=0), tmp_path / "model")

    read = load_checkpoint(tmp_path / "model", precision=torch.bfloat16)
    converted = load_checkpoint(tmp_path / "model")
    converted.encoder.set_compute_dtype(torch.bfloat16)

    for one, other in zip(read.encoder.parameters(), converted.encoder.parameters(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_a_crop_longer_than_the_learned_positions_is_an_error_that_names_windows():
    encoder = new_checkpoint(SHAPES["ESM-1b"], "gaussian", seed=0).encoder

    with pytest.raises(
        ConfigError, match="learned positions for up to 1,022 residues; longer proteins are computed in"
    ):
        encoder.layout(torch.tensor([0, 1025]))


def test_a_fitted_contact_head_of_esmc_is_kept_beside_the_weights(tmp_path):
    checkpoint = new_checkpoint(SHAPES["ESM-C"], "gaussian", seed=0)
    checkpoint.contact_head.weight.fill_(0.5)
    save_checkpoint(checkpoint, tmp_path / "model")

    again = load_checkpoint(tmp_path / "model")

    assert (tmp_path / "model" / "contact_head.safetensors").exists()
    assert torch.equal(again.contact_head.weight, checkpoint.contact_head.weight)


@pytest.mark.parametrize(
    ("shape", "window_residues"),
    [
        (SHAPES["ESM-C"], 2046),
        (SHAPES["ESM-1b"], 1022),
        (ESM2Shape(num_layers=2, dim=32, num_heads=4, num_positions=66), 64),
    ],
)
def test_a_new_model_has_the_window_of_its_architecture_and_can_be_read_again(shape, window_residues, tmp_path):
    save_checkpoint(new_checkpoint(shape, "gaussian", seed=0), tmp_path / "model")

    assert load_checkpoint(tmp_path / "model").metadata.window_residues == window_residues
