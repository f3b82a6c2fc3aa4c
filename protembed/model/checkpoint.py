"""A model directory and what it holds.

The directory is a plain Hugging Face `EsmForMaskedLM`; `protembed.json` and, for a fine-tuned model,
`head.safetensors` stand beside it. JSON and safetensors only: nothing is unpickled.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

import protembed
from protembed.config import EncoderShape
from protembed.data.alphabet import TOKENS
from protembed.errors import ModelFormatError
from protembed.files import atomic_directory, sha256_of_file, write_json, write_text
from protembed.model.encoder import Encoder, initialise, inverse_frequencies
from protembed.model.esm_config import CONFIG_FILE, ESM2_WINDOW_RESIDUES, config_json, read_shape
from protembed.model.heads import ContactHead, MaskedLMHead, TaskHead
from protembed.model.pooling import PoolingName
from protembed.model.weights import (
    WEIGHTS_FILE,
    StoredWeights,
    read_model_json,
    rotary_name,
    weight_table,
    write_tensors,
)

FORMAT_VERSION = 1
_RECORD, _HEAD = "protembed.json", "head.safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What protembed knows about a model beyond its weights: the content of `protembed.json`.

    Attributes:
        window_residues: the longest stretch that the model was trained on.
        layer: whose output represents a protein; None is the last.
        pooling: how residues become one vector; None if nothing was trained for one.
        configuration: the options of the command that made the model.
        corpus_fingerprint: of the tokens that it was pretrained on.
        metrics: what was measured on it.
        classes: of a fine-tuned classifier.
        target: what a fine-tuned model predicts; None for an encoder.
    """

    window_residues: int = ESM2_WINDOW_RESIDUES
    layer: int | None = None
    pooling: PoolingName | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    corpus_fingerprint: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    target: str | None = None


@dataclass(kw_only=True)
class Checkpoint:
    """What a model directory holds.

    Attributes:
        encoder: the encoder.
        lm_head: its masked-LM head.
        contact_head: its contact head, zeros while unfitted.
        task_head: the head of a fine-tuned model.
        record: what is known about it.
        directory: where it was read from; None for one that was just made.
    """

    encoder: Encoder
    lm_head: MaskedLMHead
    contact_head: ContactHead
    task_head: TaskHead | None = None
    record: ModelRecord = field(default_factory=ModelRecord)
    directory: Path | None = None

    @property
    def num_parameters(self) -> int:
        """Trained numbers of the encoder and its masked-LM head."""
        return sum(weight.numel() for part in (self.encoder, self.lm_head) for weight in part.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm_head.bias.device

    def sha256(self) -> str:
        """Hash the weight files of the directory; two equal hashes are one model.

        Raises:
            ValueError: the checkpoint was not read from a directory.
        """
        if self.directory is None:
            raise ValueError("a checkpoint that was not saved has no hash")
        return model_sha256(self.directory)

    def to(self, device: torch.device) -> "Checkpoint":
        """Move all parts to a device, in place, and return the checkpoint."""
        for part in self._parts().values():
            part.to(device)
        if self.task_head is not None:
            self.task_head.to(device)
        return self

    def _parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "lm_head": self.lm_head, "contact_head": self.contact_head}


def model_sha256(directory: Path) -> str:
    """Hash the weight files of a model directory; two equal hashes are one model."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(bytes.fromhex(sha256_of_file(file)))
    return digest.hexdigest()


def new_checkpoint(shape: EncoderShape, how: Literal["gaussian", "uniform"], seed: int) -> Checkpoint:
    """Make a model with starting values.

    Args:
        shape: layers, width and heads.
        how: the distribution of weight matrices and embeddings.
        seed: of the random numbers; encoder and head share one stream.
    """
    checkpoint = _without_values(shape)
    for part in checkpoint._parts().values():
        part.to_empty(device="cpu")
    checkpoint.encoder.inverse_frequencies = inverse_frequencies(shape)
    checkpoint.contact_head = ContactHead(shape.num_layers * shape.num_heads)
    checkpoint.lm_head = MaskedLMHead(shape.dim)
    generator = torch.Generator().manual_seed(seed)
    initialise(checkpoint.encoder, how, generator)
    initialise(checkpoint.lm_head, how, generator)
    return checkpoint


def load_checkpoint(directory: Path | str) -> Checkpoint:
    """Read a model directory: ESM-2 in any spelling of Hugging Face, or one that protembed wrote.

    Args:
        directory: with `config.json` and `model.safetensors` (or shards and their index).

    Returns:
        The model on the CPU, in float32 whatever the directory's precision, in evaluation mode.

    Raises:
        InputNotFoundError: there is no such directory or no model in it.
        ModelFormatError: the model is no ESM-2, or its files are damaged.
    """
    directory = Path(directory)
    shape = read_shape(directory)
    record = _read_record(directory)
    with StoredWeights(directory) as stored:
        stored.expect_num_layers(shape.num_layers)
        checkpoint = _without_values(shape)
        checkpoint.directory, checkpoint.record = directory, record
        for ours, weight in weight_table(shape).items():
            part, _, name = ours.partition(".")
            module = checkpoint._parts()[part]
            value = weight.read(stored)
            expected = module.state_dict()[name].shape
            if value.shape != expected:
                found = f"{weight.stored_names[0]} has shape {tuple(value.shape)}, not {tuple(expected)}"
                raise ModelFormatError(directory, found, "the files do not belong together")
            module.load_state_dict({name: value}, strict=False, assign=True)
    checkpoint.encoder.inverse_frequencies = inverse_frequencies(shape)
    if checkpoint.record.target is not None:
        checkpoint.task_head = _read_task_head(directory, shape, checkpoint.record)
    for module in checkpoint._parts().values():
        module.eval().requires_grad_(True)
    return checkpoint


def save_checkpoint(checkpoint: Checkpoint, directory: Path, card: str) -> None:
    """Write a model directory; it appears under its name, complete, at the end, and replaces an older one.

    Args:
        checkpoint: the model.
        directory: the final name.
        card: the text of its README.md.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_directory(directory) as temporary:
        write_checkpoint_files(checkpoint, temporary, card)


def write_checkpoint_files(checkpoint: Checkpoint, directory: Path, card: str) -> None:
    """Write the files of a model into an existing directory, to which the caller may add files of its own."""
    shape = checkpoint.encoder.shape
    state = {
        f"{part}.{name}": value
        for part, module in checkpoint._parts().items()
        for name, value in _state(module).items()
    }
    tensors = {
        name: value for ours, weight in weight_table(shape).items() for name, value in weight.stored(state[ours])
    }
    for layer in range(shape.num_layers):
        tensors[rotary_name(layer)] = inverse_frequencies(shape)
    write_tensors(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    if checkpoint.task_head is not None:
        write_tensors(_state(checkpoint.task_head), directory / _HEAD, metadata={"format": "pt"})
    write_json(directory / CONFIG_FILE, config_json(shape))
    write_json(directory / _RECORD, _record_json(checkpoint))
    write_text(directory / "vocab.txt", "\n".join(TOKENS))
    write_json(directory / "tokenizer_config.json", _TOKENIZER_CONFIG)
    write_json(directory / "special_tokens_map.json", _SPECIAL_TOKENS)
    write_text(directory / "README.md", card)


# protembed.json, head.safetensors, the tokenizer's files

_SPECIAL_TOKENS = {
    "cls_token": "<cls>",
    "eos_token": "<eos>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
_TOKENIZER_CONFIG = {**_SPECIAL_TOKENS, "tokenizer_class": "EsmTokenizer", "do_lower_case": False}


# What a reader relies on in protembed.json, and the test that it must pass.
_RECORD_FIELDS: dict[str, Callable[[Any], bool]] = {
    "window_residues": lambda value: type(value) is int and value > 0,
    "layer": lambda value: value is None or (type(value) is int and value >= 0),
    "pooling": lambda value: value in (None, *get_args(PoolingName)),
    "classes": lambda value: (
        value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))
    ),
    "target": lambda value: value is None or isinstance(value, str),
}


def _record_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "protembed_version": protembed.__version__,
        **dataclasses.asdict(checkpoint.record),
        "contact_head_fitted": checkpoint.contact_head.is_fitted,
    }


def _read_record(directory: Path) -> ModelRecord:
    if not (directory / _RECORD).exists():
        return ModelRecord()
    content = read_model_json(directory / _RECORD)
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        found = f"protembed.json has format version {version!r}"
        raise ModelFormatError(directory, found, f"this protembed reads up to {FORMAT_VERSION}: install a newer one")
    known = {spec.name for spec in dataclasses.fields(ModelRecord)}
    values = {name: value for name, value in content.items() if name in known}
    for name, is_valid in _RECORD_FIELDS.items():
        if name in values and not is_valid(values[name]):
            found = f"protembed.json has {name} {values[name]!r}"
            raise ModelFormatError(directory, found, "fetch or make the model again")
    if values.get("classes") is not None:
        values["classes"] = tuple(values["classes"])
    return ModelRecord(**values)


def _read_task_head(directory: Path, shape: EncoderShape, record: ModelRecord) -> TaskHead:
    head = TaskHead(shape.dim, record.classes)
    try:
        with safe_open(directory / _HEAD, framework="pt") as file:
            head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        advice = "fetch or make the model again"
        raise ModelFormatError(directory / _HEAD, f"missing or damaged ({error})", advice) from error
    return head.eval()


# Modules


def _without_values(shape: EncoderShape) -> Checkpoint:
    """Make the modules without allocating their numbers: a large model is not filled twice."""
    with torch.device("meta"):
        return Checkpoint(
            encoder=Encoder(shape),
            lm_head=MaskedLMHead(shape.dim),
            contact_head=ContactHead(shape.num_layers * shape.num_heads),
        )


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in module.state_dict().items()}
