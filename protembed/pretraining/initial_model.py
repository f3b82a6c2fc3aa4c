"""The model that a run starts from, its objective, and the memory that its training needs."""

import torch
from torch import Tensor

from protembed.config.common import MAX_GPU_TRAINING_TOKENS, MICRO_BATCH_TOKENS, MIN_GPU_TRAINING_TOKENS
from protembed.config.model_sizes import BYTES_PER_NUMBER, EncoderShape
from protembed.config.pretrain import PretrainConfig
from protembed.data.batching import MaskedBatch
from protembed.device import free_gpu_memory, total_memory, world_size
from protembed.errors import ConfigError, NotEnoughMemoryError
from protembed.model.catalog import locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.model.heads import ContactHead
from protembed.model.longest import check_max_residues
from protembed.model.metadata import ModelMetadata
from protembed.resources import environment_number
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup
from protembed.training.objective import Distillation, MaskedLM
from protembed.training.sharding import shard_weights

# Weights, their gradients, the gradients of one micro-batch, and at least one number of the optimiser for each weight.
_MIN_NUMBERS_PER_WEIGHT = 4
# The same if they are sharded, when gradients of micro-batches are never whole; and for each weight of a layer the
# weights that are gathered of it and of the next one, and its gradients before and after they are sent.
_MIN_SHARDED_NUMBERS_PER_WEIGHT, _NUMBERS_PER_GATHERED_WEIGHT = 3, 4
# Of a training in bfloat16, for each token, layer and channel; embedding and head count as layers. That is at least a
# fifth more than on one H100: 41 GB for 650M with 16,384 tokens, 15.5 GB for 150M, 10.4 GB for 8M with 65,536.
_BYTES_PER_ACTIVATION, _NUM_OTHER_LAYERS = 60, 4
# The rest is for updates, validations, and what the allocator cannot use.
_MEMORY_FRACTION = 0.8


def decide_sharding(config: PretrainConfig, device: torch.device) -> bool:
    """Decide whether the processes of torchrun divide the weights, and check that a device has memory for its part.

    By default they do if a device has no memory for all weights, gradients and optimiser states, or a GPU none for the
    activations of a small micro-batch beside them.

    Raises:
        ConfigError: If the weights are to be divided, but there is only one process.
        NotEnoughMemoryError: If the device has less memory than the weights, gradients and optimiser states need.
    """
    num_processes = world_size()
    if config.shard == "always" and num_processes == 1:
        raise ConfigError("shard", config.shard, "there is only one process: start several with torchrun")
    shape = config.shape if config.init_from is None else locate_model(config.init_from).shape
    available = _memory_of_process(device)
    of_micro_batch = MIN_GPU_TRAINING_TOKENS * _bytes_of_token(shape) if device.type == "cuda" else 0
    fits = _training_bytes(shape) + of_micro_batch <= available
    is_sharded = num_processes > 1 and (config.shard == "always" or (config.shard == "auto" and not fits))
    needed = _training_bytes(shape, num_processes if is_sharded else 1)
    if needed > available:
        raise NotEnoughMemoryError(shape.name, needed, available, _memory_advice(config, is_sharded=is_sharded))
    return is_sharded


def _training_bytes(shape: EncoderShape, num_shards: int = 1) -> int:
    """Return the least memory that a process needs for weights, gradients and optimiser states, in bytes."""
    if num_shards == 1:
        return _MIN_NUMBERS_PER_WEIGHT * shape.num_parameters * BYTES_PER_NUMBER
    num_held = _MIN_SHARDED_NUMBERS_PER_WEIGHT * -(-shape.num_parameters // num_shards)
    return (num_held + _NUMBERS_PER_GATHERED_WEIGHT * shape.num_layer_parameters) * BYTES_PER_NUMBER


def _bytes_of_token(shape: EncoderShape, *, is_sharded: bool = False) -> int:
    """Return the memory that the activations of a token take on a GPU, in bytes."""
    if not is_sharded:
        return _BYTES_PER_ACTIVATION * (shape.num_layers + _NUM_OTHER_LAYERS) * shape.dim
    of_inputs = BYTES_PER_NUMBER * shape.num_layers  # the layers themselves are recomputed, one at a time
    return (of_inputs + _BYTES_PER_ACTIVATION * (1 + _NUM_OTHER_LAYERS)) * shape.dim


def _memory_of_process(device: torch.device) -> int:
    """Return the memory in bytes of a GPU, or of one of the processes that share the memory of this machine."""
    num_sharing = 1 if device.type == "cuda" else environment_number("LOCAL_WORLD_SIZE", 1)
    return total_memory(device) // num_sharing


def _memory_advice(config: PretrainConfig, *, is_sharded: bool) -> str:
    smaller = "choose a smaller `size`" if config.layers is None else "choose fewer `layers` or a smaller `dim`"
    if config.init_from is not None:
        smaller = "choose a smaller model for `init_from`"
    if is_sharded:
        return f"{smaller}, or start more processes"
    if world_size() > 1:
        return f"{smaller}, or leave `shard` at auto"
    return f"{smaller}, or start a process for each of several devices with torchrun, which then share the weights"


def default_training_tokens(shape: EncoderShape, device: torch.device, num_shards: int = 1) -> int:
    """Return the tokens per micro-batch of training: a thousand per thread on a CPU, on a GPU as its memory allows.

    Small models need many tokens at once to occupy a GPU; large ones leave little memory for them. The weights, or this
    process's shard of them, are already in memory.
    """
    if device.type != "cuda":
        return MICRO_BATCH_TOKENS
    of_weights = _training_bytes(shape, num_shards) - shape.num_parameters // num_shards * BYTES_PER_NUMBER
    of_token = _bytes_of_token(shape, is_sharded=num_shards > 1)
    num_tokens = int(_MEMORY_FRACTION * (free_gpu_memory(device) - of_weights)) // of_token
    return max(MIN_GPU_TRAINING_TOKENS, min(num_tokens, MAX_GPU_TRAINING_TOKENS))


def check_models(config: PretrainConfig, crop_residues: int) -> None:
    """Check that the models to start from and to compare with predict amino acids of such crops, before any work.

    Raises:
        InputNotFoundError: If one does not exist.
        ModelFormatError: If one is damaged, of another architecture, or has no masked-LM head.
        ConfigError: If the crops are longer than the learned positions of one.
    """
    for model in (config.init_from, config.teacher, config.compare_model):
        if model is not None:
            checkpoint = load_checkpoint(model)
            checkpoint.require_lm_head()
            check_max_residues(checkpoint.encoder.shape, "crop_residues", crop_residues)


def initial_model(config: PretrainConfig, crop_residues: int) -> Checkpoint:
    """Make a new model, or load the model to start from, and record the length of the training's crops as its window.

    A model to start from keeps its rotary frequencies, and its window if that is longer; its contact head was fitted to
    the attention before this training, and is dropped.

    Raises:
        InputNotFoundError: If the model to start from does not exist.
        ModelFormatError: If it is damaged, of another architecture, or has no masked-LM head.
    """
    if config.init_from is None:
        checkpoint = new_checkpoint(config.shape, config.weight_init, config.seed)
        checkpoint.metadata = ModelMetadata(window_residues=crop_residues)
        return checkpoint
    checkpoint = load_checkpoint(config.init_from)
    checkpoint.require_lm_head()
    window = max(checkpoint.metadata.window_residues, crop_residues)
    checkpoint.metadata = ModelMetadata(window_residues=window, layer=checkpoint.metadata.layer)
    checkpoint.task_head = None
    checkpoint.contact_head = ContactHead(checkpoint.contact_head.weight.shape[1])
    return checkpoint


def masked_lm(checkpoint: Checkpoint, device: torch.device, processes: ProcessGroup = SINGLE_PROCESS) -> MaskedLM:
    """Make the objective of a model, and move it to its device in place; or this process's share, if it is sharded."""
    return _placed(MaskedLM(checkpoint.encoder, checkpoint.require_lm_head()), checkpoint, device, processes)


def training_objective(
    config: PretrainConfig, checkpoint: Checkpoint, device: torch.device, processes: ProcessGroup
) -> MaskedLM:
    """Make the objective of a training, with its teacher if there is one, and place it as `masked_lm` does."""
    if config.teacher is None:
        return masked_lm(checkpoint, device, processes)
    teacher = masked_lm(load_checkpoint(config.teacher), device)

    def predict(batch: MaskedBatch) -> Tensor:
        return teacher.logits(batch)

    # A function, because the teacher's weights are neither trained nor saved.
    objective = Distillation(checkpoint.encoder, checkpoint.require_lm_head(), predict, config.teacher_weight)
    return _placed(objective, checkpoint, device, processes)


def _placed(objective: MaskedLM, checkpoint: Checkpoint, device: torch.device, processes: ProcessGroup) -> MaskedLM:
    if processes.is_sharded:
        shard_weights(objective, device, processes)
    else:
        checkpoint.to(device)
    return objective
