"""Adapters of low rank: a frozen matrix and a learned product of two thin ones that is added to it.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from protembed.model.esm2 import Encoder
from protembed.model.onednn_linear import Linear

# What the product is multiplied by, over its rank: a rank more learns at the same pace.
_ALPHA_PER_RANK = 2.0


class LoRAParametrization(nn.Module):
    """Adds `scale · B A` to a matrix; B starts at zero, so that nothing is changed before something is learned.

    Args:
        weight: (outputs, inputs), the matrix.
        rank: of what is added.
        generator: of A's starting values, uniform as for a linear map of its own.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        num_outputs, num_inputs = weight.shape
        self.down = nn.Parameter(torch.empty(rank, num_inputs, device=weight.device))
        self.up = nn.Parameter(torch.zeros(num_outputs, rank, device=weight.device))
        width = 1 / math.sqrt(num_inputs)
        with torch.no_grad():
            self.down.copy_(torch.empty(rank, num_inputs).uniform_(-width, width, generator=generator))

    def forward(self, weight: Tensor) -> Tensor:
        """Map (outputs, inputs) to the matrix that is used."""
        return torch.addmm(weight, self.up, self.down, alpha=_ALPHA_PER_RANK)


def add_adapters(encoder: Encoder, rank: int, generator: torch.Generator) -> None:
    """Freeze an encoder, in place, and give each matrix of its layers an adapter that can be trained.

    Args:
        encoder: of which nothing but the adapters is trained from now on.
        rank: of the adapters; W_Q, W_K and W_V, which are one matrix, share one.
        generator: of their starting values, on the CPU.
    """
    encoder.requires_grad_(False)
    for linear in _linears(encoder):
        parametrize.register_parametrization(linear, "weight", LoRAParametrization(linear.weight, rank, generator))


def merge_adapters(encoder: Encoder) -> None:
    """Add each adapter to its matrix, in place; the encoder is then as any other, and everything else as it was."""
    for linear in _linears(encoder):
        parametrize.remove_parametrizations(linear, "weight", leave_parametrized=True)
    encoder.requires_grad_(True)


def _linears(encoder: Encoder) -> Iterator[Linear]:
    return (module for module in encoder.layers.modules() if isinstance(module, Linear))
