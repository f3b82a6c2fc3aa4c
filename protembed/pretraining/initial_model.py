"""The model that a run starts from: a new one, or another model."""

import torch

from protembed.config.common import MAX_GPU_TRAINING_TOKENS, MICRO_BATCH_TOKENS, MIN_GPU_TRAINING_TOKENS
from protembed.config.model_sizes import BYTES_PER_NUMBER, EncoderShape
from protembed.config.pretrain import PretrainConfig
from protembed.device import free_gpu_memory, total_memory
from protembed.errors import NotEnoughMemoryError
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.model.longest import check_max_residues
from protembed.model.metadata import ModelMetadata

# Weights, their gradients, the gradients of one micro-batch, and at least one number of the optimiser for each weight.
_MIN_NUMBERS_PER_WEIGHT = 4
# Of a training in bfloat16, for each token, layer and channel; embedding and head count as layers. That is at least a
# fifth more than on one H100: 41 GB for 650M with 16,384 tokens, 15.5 GB for 150M, 10.4 GB for 8M with 65,536.
_BYTES_PER_ACTIVATION, _NUM_OTHER_LAYERS = 60, 4
# The rest is for updates, validations, and what the allocator cannot use.
_MEMORY_FRACTION = 0.8


def check_memory(config: PretrainConfig, device: torch.device) -> None:
    """Check that a new model can be trained on a device, before any other work.

    Raises:
        NotEnoughMemoryError: If the device has less memory than the weights, gradients and optimiser states need.
    """
    if config.init_from is not None:
        return
    needed = _MIN_NUMBERS_PER_WEIGHT * config.shape.num_parameters * BYTES_PER_NUMBER
    available = total_memory(device)
    if needed > available:
        advice = "choose a smaller `size`" if config.layers is None else "choose fewer `layers` or a smaller `dim`"
        raise NotEnoughMemoryError(config.shape.name, needed, available, advice)


def default_training_tokens(shape: EncoderShape, device: torch.device) -> int:
    """Return the tokens per micro-batch of training: a thousand per thread on a CPU, on a GPU as its memory allows.

    Small models need many tokens at once to occupy a GPU; large ones leave little memory for them. The weights are
    already in memory.
    """
    if device.type != "cuda":
        return MICRO_BATCH_TOKENS
    of_weights = (_MIN_NUMBERS_PER_WEIGHT - 1) * shape.num_parameters * BYTES_PER_NUMBER
    of_token = _BYTES_PER_ACTIVATION * (shape.num_layers + _NUM_OTHER_LAYERS) * shape.dim
    num_tokens = int(_MEMORY_FRACTION * (free_gpu_memory(device) - of_weights)) // of_token
    return max(MIN_GPU_TRAINING_TOKENS, min(num_tokens, MAX_GPU_TRAINING_TOKENS))


def check_models(config: PretrainConfig, crop_residues: int) -> None:
    """Check that the models to start from and to compare with predict amino acids of such crops, before any work.

    Raises:
        InputNotFoundError: If one does not exist.
        ModelFormatError: If one is damaged, of another architecture, or has no masked-LM head.
        ConfigError: If the crops are longer than the learned positions of one.
    """
    for model in (config.init_from, config.compare_model):
        if model is not None:
            checkpoint = load_checkpoint(model)
            checkpoint.require_lm_head()
            check_max_residues(checkpoint.encoder.shape, "crop_residues", crop_residues)


def initial_model(config: PretrainConfig, crop_residues: int) -> Checkpoint:
    """Make a new model, or load the model to start from, and record the length of the training's crops as its window.

    A model to start from keeps its rotary frequencies, and its window if that is longer.

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
    return checkpoint
