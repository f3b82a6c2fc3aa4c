"""Whether a run of pretraining compiles its layers, and the micro-batches that it then trains on."""

from collections.abc import Callable, Sequence

import torch

from protembed.config.pretrain import CompileName
from protembed.data.batching import MaskedBatch
from protembed.pretraining.batches import PretrainingBatches
from protembed.training.compilation import compile_layers
from protembed.training.distributed import Executor
from protembed.training.objective import MaskedLM

MicroBatches = Callable[[int], Sequence[MaskedBatch]]


def compile_training(
    objective: MaskedLM, batches: PretrainingBatches, executor: Executor, option: CompileName
) -> tuple[MicroBatches, list[str]]:
    """Compile the layers of an objective for training in bfloat16 on a GPU, unless the option forbids it.

    Returns:
        The function that draws the micro-batches of a step, all of one shape if the layers are compiled; and warnings.
    """
    is_on_gpu = objective.device.type == "cuda" and executor.precision == torch.bfloat16
    if option == "never" or not is_on_gpu:
        return batches.micro_batches, []
    failure = compile_layers(objective, batches.shape.dummy(), executor)
    return (batches.fixed_micro_batches, []) if failure is None else (batches.micro_batches, [failure])
