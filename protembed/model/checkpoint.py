"""Models, and the directories that hold them.

A directory is a plain Hugging Face model, with `protembed.json` and, for a fine-tuned model, `head.safetensors` in
addition. JSON and safetensors only: nothing is unpickled.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from protembed.config.common import TASKS
from protembed.config.finetune import MAX_TRAINING_KMERS
from protembed.config.model_sizes import EncoderShape
from protembed.device import exact_float32
from protembed.errors import ModelFormatError
from protembed.io.reading import PathLike, as_path
from protembed.io.writing import atomic_directory, write_json, write_text
from protembed.model.architectures import new_encoder, new_lm_head
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.encoder import Encoder, initialise, inverse_frequencies
from protembed.model.formats import config_json, format_of, name_of
from protembed.model.heads import ContactHead, MaskedLMHead, TaskHead
from protembed.model.hf_format import CONFIG_FILE, check_vocabulary
from protembed.model.metadata import METADATA_FILE, ModelMetadata, write_metadata
from protembed.model.offload import OffloadedLayers
from protembed.model.untrusted import lies_in_cache, model_sha256
from protembed.model.weights import (
    WEIGHTS_FILE,
    WeightFiles,
    open_tensors,
    read_tensor,
    split_weight,
    write_tensors,
)

_KMERS_FILE, _KMERS_NAME = "training_kmers.safetensors", "hashes"
_HEAD = "head.safetensors"
# Where the architecture's layout has no place for a contact head.
_CONTACT_HEAD = "contact_head.safetensors"
# Of heads from before thresholds were stored; see `TaskHead`.
_FORMER_THRESHOLD = 0.5
# How the names of layers' weights begin.
_LAYERS = "encoder.layers."
_SHORTEST_CARD = "# A protein language model\n"


def _read_training_kmers(directory: Path) -> Tensor | None:
    """Read the hashes of the training proteins' k-mers, (k-mers,), int64, ascending; None where the model has none."""
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
    raise ModelFormatError(path, "it holds no ascending hashes of k-mers")


def _fill_head(head: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Give a head the tensors of its file, in place.

    Raises:
        ModelFormatError: A tensor is missing, has another shape, or is not one of the head's.
    """
    expected, advice = head.state_dict(), "the files do not belong together"
    for name, weight in expected.items():
        if name not in state:
            raise ModelFormatError(path, f"it has no {name}", advice)
        if state[name].shape != weight.shape:
            found = f"{name} has shape {tuple(state[name].shape)}, not {tuple(weight.shape)}"
            raise ModelFormatError(path, found, advice)
    for name in sorted(state.keys() - expected.keys()):
        raise ModelFormatError(path, f"it has {name!r:.80}, which is not part of such a head", advice)
    head.load_state_dict(state, assign=True)


def _read_task_head(directory: Path, shape: EncoderShape, metadata: ModelMetadata) -> TaskHead:
    path = directory / _HEAD
    with open_tensors(path) as file:
        state = {name: read_tensor(file, name, path).float() for name in file.keys()}  # noqa: SIM118
    task = TASKS[metadata.task or "regression"]
    # The file decides how wide the head is, but nothing is allocated before the file was seen to hold as much.
    with torch.device("meta"):
        head = TaskHead(
            shape.dim if task.per_residue else shape.dim * len(metadata.poolings),
            task,
            metadata.classes,
            num_hidden=state["hidden.bias"].numel() if "hidden.bias" in state else None,
            query_dim=shape.dim if "query" in state else None,
        )
    _fill_head(head, {"threshold": torch.tensor(_FORMER_THRESHOLD), **state}, path)
    return head.eval()


@dataclass(kw_only=True, repr=False)
class Checkpoint:
    """A model: an encoder, its heads, and what is known about it.

    Attributes:
        lm_head: The masked-LM head; None where the directory holds the encoder alone, or with another head.
        contact_head: The contact head, zeros while unfitted.
        task_head: The head of a fine-tuned model; None for an encoder.
        training_kmers: Hashes of a fine-tuned model's training proteins' k-mers, (k-mers,), int64, ascending; None
            where there are none.
        has_metadata: Whether the metadata were read from the directory or are those of published models; otherwise they
            are assumed.
        directory: The directory that the model was read from; None for a new model.
        offloaded: The layers of the encoder, if they stay in the files until they are computed; else None.
        gather: Makes a whole weight, by its name such as `encoder.embedding.weight`, of what this process holds of it.
    """

    encoder: Encoder
    lm_head: MaskedLMHead | None
    contact_head: ContactHead
    task_head: TaskHead | None = None
    training_kmers: Tensor | None = None
    metadata: ModelMetadata = field(default_factory=ModelMetadata)
    has_metadata: bool = True
    directory: Path | None = None
    offloaded: OffloadedLayers | None = None
    gather: Callable[[str, Tensor], Tensor] = lambda name, weight: weight

    def __repr__(self) -> str:
        name, millions = self.encoder.shape.name, self.num_parameters / 1e6
        return f"Checkpoint({name}, {millions:.1f} M parameters, task={self.metadata.task})"

    @property
    def num_parameters(self) -> int:
        """The number of trained parameters of the encoder and its masked-LM head."""
        weights = (part.named_parameters(remove_duplicate=False) for part in self._parts().values())
        return sum(weight.numel() for part in weights for _, weight in part)  # all layers that share a module count

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.encoder.parameters()).device

    def sha256(self) -> str:
        """Hash the weight files of the directory; models with equal hashes are the same.

        Raises:
            ValueError: The checkpoint was not read from a directory.
        """
        if self.directory is None:
            raise ValueError("a checkpoint that was not saved has no hash")
        return model_sha256(self.directory)

    def to(self, device: torch.device | str) -> "Checkpoint":
        """Move all parts to a device, in place, and return the checkpoint."""
        for part in self._parts().values():
            part.to(device)
        if self.task_head is not None:
            self.task_head.to(device)
        return self

    @property
    def warnings(self) -> list[str]:
        """Warnings about a model without metadata, in sentences."""
        if self.has_metadata:
            return []
        window = f"a window of {self.metadata.window_residues:,} residues"
        name = name_of(self.encoder.shape)
        return [
            f"the model's directory has no {METADATA_FILE}: {window}, the last layer and the mean are assumed, which "
            f"is right for published {name} models; for other models, pass the window and layer, or copy "
            f"{METADATA_FILE} from the original directory"
        ]

    @property
    def lm_head_warnings(self) -> list[str]:
        """Warnings about the use of the masked-LM head, in sentences."""
        if not self.metadata.has_finetuned_encoder:
            return []
        return ["this model was fine-tuned without its masked-LM head; use the original model for scoring"]

    def require_lm_head(self) -> MaskedLMHead:
        """Return the masked-LM head.

        Raises:
            ModelFormatError: The model has none.
        """
        if self.lm_head is None:
            found = "the weights have no lm_head, the masked-LM head that predicts amino acids"
            class_name = format_of(self.encoder.shape).class_name
            advice = f"`score` and `pretrain` need it: use a model that was saved from {class_name}"
            raise ModelFormatError(self.directory or Path(), found, advice)
        return self.lm_head

    def _parts(self) -> dict[str, nn.Module]:
        parts = {"encoder": self.encoder, "lm_head": self.lm_head, "contact_head": self.contact_head}
        return {name: part for name, part in parts.items() if part is not None}


@exact_float32()
def new_checkpoint(shape: EncoderShape, how: Literal["gaussian", "uniform"], seed: int) -> Checkpoint:
    """Make a model with random initial weights; see `initialise`.

    Encoder and head share one sequence of random numbers.
    """
    with torch.device("meta"):
        encoder = new_encoder(shape)
    encoder.to_empty(device="cpu").inverse_frequencies = inverse_frequencies(shape)
    lm_head, contact_head = new_lm_head(shape), ContactHead(shape.num_layers * shape.num_heads)
    generator = torch.Generator().manual_seed(seed)
    initialise(encoder, how, generator)
    initialise(lm_head, how, generator)
    metadata = ModelMetadata(window_residues=shape.trained_window_residues)
    return Checkpoint(encoder=encoder, lm_head=lm_head, contact_head=contact_head, metadata=metadata)


def _fill(checkpoint: Checkpoint, stored: WeightFiles, device: torch.device, *, with_layers: bool) -> None:
    """Load the weights of a directory into the modules, in place; heads that it does not hold are left out.

    The modules are on the meta device, in the dtypes that the weights shall have.
    """
    shape = checkpoint.encoder.shape
    if not stored.has("lm_head."):
        checkpoint.lm_head = None
    checkpoint.contact_head = ContactHead(shape.num_layers * shape.num_heads)
    modules = checkpoint._parts()
    if not stored.has("esm.contact_head."):
        del modules["contact_head"]
    for full_name, stored_names in format_of(shape).weight_names(shape).items():
        part, _, name = full_name.partition(".")
        if part not in modules or (full_name.startswith(_LAYERS) and not with_layers):
            continue
        value = stored.weight(stored_names, modules[part].state_dict()[name], device)
        modules[part].load_state_dict({name: value}, strict=False, assign=True)
    stored.check_tied_decoder()
    exact = inverse_frequencies(shape)
    frequencies = stored.rotary_frequencies(len(exact))
    checkpoint.encoder.inverse_frequencies = (exact if frequencies is None else frequencies).to(device)


def _offload(encoder: Encoder, stored: WeightFiles, device: torch.device) -> OffloadedLayers:
    """Leave the layers of an encoder in the files, in place; one is held in memory, two on a GPU."""
    names = format_of(encoder.shape).weight_names(encoder.shape)

    def read(number: int, name: str, weight: Tensor) -> None:
        stored.fill(weight, names[f"{_LAYERS}{number}.{name}"])

    modules = [layer.to_empty(device=device) for layer in encoder.layers[: 2 if device.type == "cuda" else 1]]
    offloaded = OffloadedLayers(modules, encoder.shape.num_layers, read)
    encoder.layers = offloaded.modules
    return offloaded


@exact_float32()
def load_checkpoint(
    model: PathLike | ResolvedModel | None = None,
    *,
    precision: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    offload: bool = False,
) -> Checkpoint:
    """Read a model of the ESM family under any of Hugging Face's weight names, or one that protembed wrote.

    Args:
        model: What `--model` takes: a model directory (with `config.json`, and `model.safetensors` or shards and their
            index), a run directory, the name of a bundled model, or a name on the Hugging Face hub, which alone needs
            the network; or what `locate_model` found. None is the default model.
        precision: The dtype of the layers' matrices, as `Encoder.set_compute_dtype` sets it; each tensor is read from
            the mapped file straight into it.
        device: The device of the weights.
        offload: Whether the layers stay in the files; an engine with `Checkpoint.offloaded` computes with such a model.

    Returns:
        The model in evaluation mode; all but the layers' matrices is in float32 whatever the directory's precision. Its
        rotary frequencies are those of the directory, exact ones where it stores none. A model that was saved without a
        contact head has one of zeros, and one that was saved without a masked-LM head has none.

    Raises:
        InputNotFoundError: There is no such model.
        HubError: The hub does not respond.
        ModelFormatError: The model is of another architecture, or its files are damaged.

    >>> load_checkpoint("protembed_t6_8M")
    Checkpoint(t6_8M, 7.5 M parameters, task=None)
    """
    model = model if isinstance(model, ResolvedModel) else locate_model(model)
    directory, shape = model.directory, model.shape
    check_vocabulary(directory, format_of(shape))
    with ExitStack() as files:
        stored = files.enter_context(WeightFiles(directory, format_of(shape)))
        stored.check_num_layers(shape.num_layers)
        checkpoint = _without_weights(model)
        checkpoint.encoder.set_compute_dtype(precision)
        _fill(checkpoint, stored, torch.device(device), with_layers=not offload)
        if offload:
            checkpoint.offloaded = _offload(checkpoint.encoder, stored, torch.device(device))
            files.pop_all()  # they stay open for as long as the layers are used
    _read_contact_head(checkpoint, directory)
    if model.metadata.target is not None:
        checkpoint.task_head = _read_task_head(directory, shape, model.metadata)
        checkpoint.training_kmers = _read_training_kmers(directory)
    for module in checkpoint._parts().values():
        module.eval().requires_grad_(True)
    return checkpoint.to(device)


def _without_weights(model: ResolvedModel) -> Checkpoint:
    """Make a model whose weights are on the meta device, so that a large one is not filled twice."""
    shape = model.shape
    with torch.device("meta"):
        return Checkpoint(
            encoder=new_encoder(shape),
            lm_head=new_lm_head(shape),
            contact_head=ContactHead(shape.num_layers * shape.num_heads),
            metadata=model.metadata,
            has_metadata=(model.directory / METADATA_FILE).exists() or lies_in_cache(model.directory),
            directory=model.directory,
        )


def _read_contact_head(checkpoint: Checkpoint, directory: Path) -> None:
    """Read the contact head of an architecture whose layout has no place for one, in place."""
    path = directory / _CONTACT_HEAD
    if _has_place_for_contacts(checkpoint.encoder.shape) or not path.exists():
        return
    with open_tensors(path) as file:
        state = {name: read_tensor(file, name, path).float() for name in file.keys()}  # noqa: SIM118  # no dictionary
    _fill_head(checkpoint.contact_head, state, path)


def _has_place_for_contacts(shape: EncoderShape) -> bool:
    return "contact_head.weight" in format_of(shape).weight_names(shape)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in module.state_dict().items()}


def _read_weight(checkpoint: Checkpoint, full_name: str, weight: Tensor) -> Tensor:
    """Copy a weight to the CPU in float32, or read it from the files of the model that its layer is left in."""
    if checkpoint.offloaded is None or not full_name.startswith(_LAYERS):
        return checkpoint.gather(full_name, weight.detach()).to("cpu", torch.float32)
    number, _, name = full_name.removeprefix(_LAYERS).partition(".")
    copy = torch.empty(weight.shape)
    checkpoint.offloaded.read(int(number), name, copy)
    return copy


def _write_weights(checkpoint: Checkpoint, path: Path, dtype: torch.dtype) -> None:
    """Write the encoder, the masked-LM head and the contact head, as far as the architecture's layout has a place."""
    shape, model_format = checkpoint.encoder.shape, format_of(checkpoint.encoder.shape)
    state = {
        f"{part}.{name}": value
        for part, module in checkpoint._parts().items()
        for name, value in module.state_dict().items()
    }
    tensors, sources = dict[str, Tensor](), dict[str, tuple[str, Sequence[str]]]()
    for full_name, stored_names in model_format.weight_names(shape).items():
        if full_name in state:
            template = torch.empty(state[full_name].shape, dtype=dtype, device="meta")
            tensors |= dict(split_weight(template, stored_names))
            sources |= dict.fromkeys(stored_names, (full_name, stored_names))
    if model_format.rotary_name is not None and shape.max_residues is None:
        # Rounded frequencies would rotate distant residues differently; recomputed ones might not be those of training.
        frequencies = checkpoint.encoder.inverse_frequencies.to("cpu", torch.float32)
        tensors |= {model_format.rotary_name(layer): frequencies for layer in range(shape.num_layers)}

    def read(name: str) -> Tensor:
        if name not in sources:
            return tensors[name]
        full_name, stored_names = sources[name]
        weight = _read_weight(checkpoint, full_name, state[full_name])
        return dict(split_weight(weight, stored_names))[name].to(dtype)

    write_tensors(tensors, path, metadata={"format": "pt"}, read=read)


def write_checkpoint_files(
    checkpoint: Checkpoint, directory: Path, card: str, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write the files of a model into an existing directory, to which the caller may add others.

    Weights that are stored in float16 take half the space, and transformers and protembed read them as float32. The
    rotary frequencies stay in float32, as they were read. The card becomes README.md.
    """
    shape = checkpoint.encoder.shape
    model_format = format_of(shape)
    _write_weights(checkpoint, directory / WEIGHTS_FILE, dtype)
    if checkpoint.contact_head.is_fitted and not _has_place_for_contacts(shape):
        write_tensors(_state(checkpoint.contact_head), directory / _CONTACT_HEAD, metadata={"format": "pt"})
    if checkpoint.task_head is not None:
        write_tensors(_state(checkpoint.task_head), directory / _HEAD, metadata={"format": "pt"})
        if checkpoint.training_kmers is not None:
            write_tensors({_KMERS_NAME: checkpoint.training_kmers.to(torch.int64)}, directory / _KMERS_FILE)
    write_json(directory / CONFIG_FILE, config_json(shape, has_lm_head=checkpoint.lm_head is not None))
    write_metadata(directory, checkpoint.metadata, contact_head_fitted=checkpoint.contact_head.is_fitted)
    for name, content in model_format.tokenizer_files().items():
        if isinstance(content, str):
            write_text(directory / name, content)
        else:
            write_json(directory / name, content)
    write_text(directory / "README.md", card)


def save_checkpoint(checkpoint: Checkpoint, directory: PathLike, card: str = _SHORTEST_CARD) -> None:
    """Write a model directory in float32; it appears under its name when it is complete, and replaces an older one.

    Args:
        checkpoint: The model.
        directory: The directory to make.
        card: The text of its README.md.

    Raises:
        OutputError: The directory cannot be written.
    """
    with atomic_directory(as_path("directory", directory)) as temporary:
        write_checkpoint_files(checkpoint, temporary, card)
