"""`training_kmers.safetensors`: a sample of the k-mers of a fine-tuned model's training proteins, as hashes."""

from pathlib import Path

import torch
from torch import Tensor

from protembed.config.finetune import MOST_TRAINING_KMERS
from protembed.errors import ModelFormatError
from protembed.model.weights import open_tensors, write_tensors

_FILE, _NAME = "training_kmers.safetensors", "hashes"


def read_training_kmers(directory: Path) -> Tensor | None:
    """Read the hashes of the training proteins' k-mers.

    Args:
        directory: The model directory.

    Returns:
        The hashes, (k-mers,), int64, ascending; None where the model has none.

    Raises:
        ModelFormatError: The file is damaged, or holds anything else.
    """
    path = directory / _FILE
    if not path.exists():
        return None
    with open_tensors(path) as file:
        stored = file.get_slice(_NAME) if _NAME in file.keys() else None  # noqa: SIM118  # not a dictionary
        if stored is not None and stored.get_dtype() == "I64" and len(stored.get_shape()) == 1:
            if stored.get_shape()[0] <= MOST_TRAINING_KMERS:
                hashes: Tensor = file.get_tensor(_NAME)
                if (hashes[1:] > hashes[:-1]).all():
                    return hashes
    raise ModelFormatError(path, "it holds no ascending hashes of k-mers", "fetch or make the model again")


def write_training_kmers(directory: Path, hashes: Tensor) -> None:
    """Write the hashes of the training proteins' k-mers, (k-mers,), int64, ascending, into an existing directory."""
    write_tensors({_NAME: hashes.to(torch.int64)}, directory / _FILE)
