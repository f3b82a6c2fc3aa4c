"""A model directory and what it holds.

The directory is a plain Hugging Face `EsmForMaskedLM`; `protembed.json` and, for a fine-tuned model,
`head.safetensors` stand beside it. JSON and safetensors only: nothing is unpickled.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from protembed.config.common import TASKS
from protembed.config.finetune import MAX_TRAINING_KMERS
from protembed.config.model_sizes import EncoderShape
from protembed.data.alphabet import TOKENS
from protembed.device import exact_float32
from protembed.errors import ModelFormatError
from protembed.io.writing import atomic_directory, write_json, write_text
from protembed.model.esm2 import Encoder, initialise, inverse_frequencies
from protembed.model.esm_config import (
    CONFIG_FILE,
    SPECIAL_TOKENS,
    VOCABULARY_FILE,
    check_vocabulary,
    config_json,
    read_shape,
)
from protembed.model.heads import ContactHead, MaskedLMHead, TaskHead
from protembed.model.metadata import METADATA_FILE, ModelMetadata, read_metadata, write_metadata
from protembed.model.untrusted import lies_in_cache, sha256_of_own_file
from protembed.model.weights import (
    WEIGHTS_FILE,
    WeightFiles,
    open_tensors,
    read_tensor,
    rotary_name,
    weight_table,
    write_tensors,
)

_KMERS_FILE, _KMERS_NAME = "training_kmers.safetensors", "hashes"


_HEAD = "head.safetensors"
# Heads had none at first; see `TaskHead`.
_EARLIER_THRESHOLD = 0.5


@dataclass(kw_only=True)
class Checkpoint:
    """What a model directory holds.

    Attributes:
        encoder: the encoder.
        lm_head: its masked-LM head; None where the directory holds the encoder alone, or with another head.
        contact_head: its contact head, zeros while unfitted.
        task_head: the head of a fine-tuned model.
        training_kmers: Hashes of a fine-tuned model's training proteins' k-mers, (k-mers,), int64, ascending; None
            where there are none.
        metadata: what is known about it.
        is_recorded: whether that was read from the directory or was published; otherwise it is assumed.
        directory: where it was read from; None for one that was just made.
    """

    encoder: Encoder
    lm_head: MaskedLMHead | None
    contact_head: ContactHead
    task_head: TaskHead | None = None
    training_kmers: Tensor | None = None
    metadata: ModelMetadata = field(default_factory=ModelMetadata)
    has_metadata: bool = True
    directory: Path | None = None

    @property
    def num_parameters(self) -> int:
        """Trained numbers of the encoder and its masked-LM head."""
        return sum(weight.numel() for part in self._parts().values() for weight in part.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

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

    @property
    def warnings(self) -> list[str]:
        """What the user should know about a model whose training is not recorded."""
        if self.has_metadata:
            return []
        window = f"a window of {self.metadata.window_residues:,} residues"
        return [
            f"the model's directory has no {METADATA_FILE}: {window}, the last layer and the mean are assumed, which "
            "is right for ESM-2 as published; where another was meant, pass its window and layer, or copy "
            f"{METADATA_FILE} from the model's first directory"
        ]

    def require_lm_head(self) -> MaskedLMHead:
        """Return the masked-LM head.

        Raises:
            ModelFormatError: the model has none.
        """
        if self.lm_head is None:
            found = "the weights have no lm_head, the masked-LM head that predicts amino acids"
            advice = "`score` and `pretrain` need it: name a model that was saved from EsmForMaskedLM"
            raise ModelFormatError(self.directory or Path(), found, advice)
        return self.lm_head

    def _parts(self) -> dict[str, nn.Module]:
        parts = {"encoder": self.encoder, "lm_head": self.lm_head, "contact_head": self.contact_head}
        return {name: part for name, part in parts.items() if part is not None}


def model_sha256(directory: Path) -> str:
    """Hash the weight files of a model directory; two equal hashes are one model."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        digest.update(bytes.fromhex(sha256_of_own_file(file)))
    return digest.hexdigest()


@exact_float32()
def new_checkpoint(shape: EncoderShape, how: Literal["gaussian", "uniform"], seed: int) -> Checkpoint:
    """Make a model with starting values.

    Args:
        shape: layers, width and heads.
        how: the distribution of weight matrices and embeddings.
        seed: of the random numbers; encoder and head share one stream.
    """
    checkpoint, lm_head = _on_meta_device(shape), MaskedLMHead(shape.dim)
    for part in checkpoint._parts().values():
        part.to_empty(device="cpu")
    checkpoint.encoder.inverse_frequencies = inverse_frequencies(shape)
    checkpoint.contact_head = ContactHead(shape.num_layers * shape.num_heads)
    checkpoint.lm_head = lm_head
    generator = torch.Generator().manual_seed(seed)
    initialise(checkpoint.encoder, how, generator)
    initialise(lm_head, how, generator)
    return checkpoint


@exact_float32()
def load_checkpoint(directory: Path | str) -> Checkpoint:
    """Read a model directory: ESM-2 in any spelling of Hugging Face, or one that protembed wrote.

    Args:
        directory: with `config.json` and `model.safetensors` (or shards and their index).

    Returns:
        The model on the CPU, in float32 whatever the directory's precision, in evaluation mode. Its rotary frequencies
        are those of the directory, exact ones where it stores none. A model that was saved without a contact head has
        one of zeros, and one that was saved without a masked-LM head has none.

    Raises:
        InputNotFoundError: there is no such directory or no model in it.
        ModelFormatError: the model is no ESM-2, or its files are damaged.
    """
    directory = Path(directory)
    shape = read_shape(directory)
    record = read_metadata(directory)
    if (record.layer or 0) > shape.num_layers:
        found = f"protembed.json names layer {record.layer}, of {shape.num_layers}"
        raise ModelFormatError(directory, found, "the files do not belong together")
    check_vocabulary(directory)
    with WeightFiles(directory) as stored:
        stored.expect_num_layers(shape.num_layers)
        checkpoint = _on_meta_device(shape)
        checkpoint.directory, checkpoint.metadata = directory, record
        checkpoint.has_metadata = (directory / METADATA_FILE).exists() or lies_in_cache(directory)
        _fill(checkpoint, stored, directory)
    if checkpoint.metadata.target is not None:
        checkpoint.task_head = _read_task_head(directory, shape, checkpoint.metadata)
        checkpoint.training_kmers = read_training_kmers(directory)
    for module in checkpoint._parts().values():
        module.eval().requires_grad_(True)
    return checkpoint


def _fill(checkpoint: Checkpoint, stored: WeightFiles, directory: Path) -> None:
    """Give the modules the weights of a directory, in place; of the heads those that it has.

    Raises:
        ModelFormatError: a weight is missing, or has another shape.
    """
    shape = checkpoint.encoder.shape
    if not stored.has("lm_head."):
        checkpoint.lm_head = None
    modules = checkpoint._parts()
    if not stored.has("esm.contact_head."):
        checkpoint.contact_head = ContactHead(shape.num_layers * shape.num_heads)
        del modules["contact_head"]
    for ours, weight in weight_table(shape).items():
        part, _, name = ours.partition(".")
        if part not in modules:
            continue
        value = weight.read(stored)
        expected = modules[part].state_dict()[name].shape
        if value.shape != expected:
            found = f"{weight.stored_names[0]} has shape {tuple(value.shape)}, not {tuple(expected)}"
            raise ModelFormatError(directory, found, "the files do not belong together")
        modules[part].load_state_dict({name: value}, strict=False, assign=True)
    stored.expect_tied_decoder()
    exact = inverse_frequencies(shape)
    frequencies = stored.rotary_frequencies(len(exact))
    checkpoint.encoder.inverse_frequencies = exact if frequencies is None else frequencies


def save_checkpoint(checkpoint: Checkpoint, directory: Path, card: str) -> None:
    """Write a model directory in float32; it appears under its name, complete, at the end, and replaces an older one.

    Args:
        checkpoint: the model.
        directory: the final name.
        card: the text of its README.md.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_directory(directory) as temporary:
        write_checkpoint_files(checkpoint, temporary, card)


def write_checkpoint_files(
    checkpoint: Checkpoint, directory: Path, card: str, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write the files of a model into an existing directory, to which the caller may add files of its own.

    Args:
        checkpoint: the model.
        directory: where its files go.
        card: the text of its README.md.
        dtype: of the stored weights; float16 is half as large, and transformers and protembed read float32 from it.
            The rotary frequencies stay in float32, as they were read.
    """
    shape = checkpoint.encoder.shape
    state = {
        f"{part}.{name}": value
        for part, module in checkpoint._parts().items()
        for name, value in _state(module).items()
    }
    tensors = {
        name: value.to(dtype)
        for ours, weight in weight_table(shape).items()
        if ours in state
        for name, value in weight.stored(state[ours])
    }
    # Rounded, they would turn far residues by another angle; recomputed, they might not be those of the training.
    frequencies = checkpoint.encoder.inverse_frequencies.to("cpu", torch.float32)
    tensors |= {rotary_name(layer): frequencies.clone() for layer in range(shape.num_layers)}
    write_tensors(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    if checkpoint.task_head is not None:
        write_tensors(_state(checkpoint.task_head), directory / _HEAD, metadata={"format": "pt"})
        if checkpoint.training_kmers is not None:
            write_training_kmers(directory, checkpoint.training_kmers)
    write_json(directory / CONFIG_FILE, config_json(shape, has_lm_head=checkpoint.lm_head is not None))
    write_metadata(directory, checkpoint.metadata, contact_head_fitted=checkpoint.contact_head.is_fitted)
    write_text(directory / VOCABULARY_FILE, "\n".join(TOKENS))
    write_json(directory / "tokenizer_config.json", _TOKENIZER_CONFIG)
    write_json(directory / "special_tokens_map.json", SPECIAL_TOKENS)
    write_text(directory / "README.md", card)


# head.safetensors, the tokenizer's files

_TOKENIZER_CONFIG = {**SPECIAL_TOKENS, "tokenizer_class": "EsmTokenizer", "do_lower_case": False}


def _read_task_head(directory: Path, shape: EncoderShape, record: ModelMetadata) -> TaskHead:
    path = directory / _HEAD
    with open_tensors(path) as file:
        state = {name: read_tensor(file, name, path) for name in file.keys()}  # noqa: SIM118
    task = TASKS[record.task or "regression"]
    # A head is as wide as its file says, but nothing is allocated for it before the file is seen to hold as much.
    with torch.device("meta"):
        head = TaskHead(
            shape.dim if task.per_residue else shape.dim * len(record.poolings),
            task,
            record.classes,
            num_hidden=state["hidden.bias"].numel() if "hidden.bias" in state else None,
            query_dim=shape.dim if "query" in state else None,
        )
    try:
        head.load_state_dict({"threshold": torch.tensor(_EARLIER_THRESHOLD), **state}, assign=True)
    except RuntimeError as error:
        found = f"missing or damaged ({' '.join(str(error).split())})"
        raise ModelFormatError(path, found, "fetch or make the model again") from error
    return head.eval()


# Modules


def _on_meta_device(shape: EncoderShape) -> Checkpoint:
    """Make the modules without allocating their numbers: a large model is not filled twice."""
    with torch.device("meta"):
        return Checkpoint(
            encoder=Encoder(shape),
            lm_head=MaskedLMHead(shape.dim),
            contact_head=ContactHead(shape.num_layers * shape.num_heads),
        )


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in module.state_dict().items()}


def read_training_kmers(directory: Path) -> Tensor | None:
    """Read the hashes of the training proteins' k-mers.

    Args:
        directory: The model directory.

    Returns:
        The hashes, (k-mers,), int64, ascending; None where the model has none.

    Raises:
        ModelFormatError: The file is damaged, or holds anything else.
    """
    path = directory / _KMERS_FILE
    if not path.exists():
        return None
    with open_tensors(path) as file:
        stored = file.get_slice(_KMERS_NAME) if _KMERS_NAME in file.keys() else None  # noqa: SIM118  # not a dictionary
        if stored is not None and stored.get_dtype() == "I64" and len(stored.get_shape()) == 1:
            if stored.get_shape()[0] <= MAX_TRAINING_KMERS:
                hashes: Tensor = file.get_tensor(_KMERS_NAME)
                if (hashes[1:] > hashes[:-1]).all():
                    return hashes
    raise ModelFormatError(path, "it holds no ascending hashes of k-mers", "fetch or make the model again")


def write_training_kmers(directory: Path, hashes: Tensor) -> None:
    """Write the hashes of the training proteins' k-mers, (k-mers,), int64, ascending, into an existing directory."""
    write_tensors({_KMERS_NAME: hashes.to(torch.int64)}, directory / _KMERS_FILE)
