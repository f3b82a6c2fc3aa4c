"""The precision of a training, which is decided once and recorded in the run."""

from functools import partial

import torch

from protembed.config.common import PrecisionName
from protembed.device import choose_precision
from protembed.training.run_directory import RunDirectory


def resolve_precision(run: RunDirectory, requested: PrecisionName, device: torch.device) -> torch.dtype:
    """Return the precision of a run: the recorded one, whatever the machine on which it is resumed.

    A run of an earlier version recorded none; it was begun as inference is, in bfloat16 on GPUs only.
    """
    choose = partial(choose_precision, requested, device, is_training=run.is_new)
    name = run.load_or_compute("precision", lambda: precision_name(choose()))
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def precision_name(precision: torch.dtype) -> str:
    """Return the name of a precision, as options and records have it.

    >>> precision_name(torch.bfloat16)
    'bfloat16'
    """
    return str(precision).removeprefix("torch.")
