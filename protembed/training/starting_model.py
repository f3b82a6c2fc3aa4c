"""The model that a pretraining begins with, and whether it fits into memory."""

import torch

from protembed.config.model_sizes import DEFAULT_SIZE, SIZES
from protembed.config.pretrain import PretrainConfig
from protembed.device import total_memory
from protembed.errors import NotEnoughMemoryError
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint, new_checkpoint
from protembed.model.metadata import ModelRecord

BYTES_PER_NUMBER = 4
# Weights, the sum of the gradients, those of one pack, and at least one number of the optimiser's for each weight.
_MIN_NUMBERS_PER_WEIGHT = 4


def check_memory(config: PretrainConfig, device: torch.device) -> None:
    """Refuse a new model that cannot fit, before any work.

    Raises:
        NotEnoughMemoryError: weights, gradients and the optimiser's numbers need more than there is.
    """
    if config.from_model is not None:
        return
    size = config.size or DEFAULT_SIZE
    needed = _MIN_NUMBERS_PER_WEIGHT * SIZES[size].num_parameters * BYTES_PER_NUMBER
    available = total_memory(device)
    if needed > available:
        raise NotEnoughMemoryError(size, needed, available)


def starting_model(config: PretrainConfig, crop_residues: int) -> Checkpoint:
    """Make a new model, or read the one to go on from; it records the window that it will have been trained on.

    The model to go on from keeps its rotary frequencies.

    Args:
        config: size, initialisation and seed, or the model to go on from.
        crop_residues: the longest crop.

    Raises:
        InputNotFoundError: the model to go on from is not there.
        ModelFormatError: it is damaged, no ESM-2, or has no masked-LM head.
    """
    if config.from_model is None:
        checkpoint = new_checkpoint(SIZES[config.size or DEFAULT_SIZE], config.weight_init, config.seed)
        checkpoint.record = ModelRecord(window_residues=crop_residues)
        return checkpoint
    checkpoint = load_checkpoint(find_model(config.from_model))
    checkpoint.require_lm_head()
    window = max(checkpoint.record.window_residues, crop_residues)
    checkpoint.record = ModelRecord(window_residues=window, layer=checkpoint.record.layer)
    checkpoint.task_head = None
    return checkpoint
