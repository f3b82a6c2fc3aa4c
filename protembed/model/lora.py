"""Low-rank adapters: the learned product of two thin matrices, added to a frozen matrix.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from protembed.model.encoder import Encoder
from protembed.model.onednn_linear import Linear

# The factor of the product; LoRA's alpha is this times the rank, so that any rank learns at the same pace.
_ALPHA_PER_RANK = 2.0


class LoRAParametrization(nn.Module):
    """Adds `scale · B A` to a matrix; B starts at zero, so that the matrix is unchanged before training.

    Args:
        weight: The frozen matrix, (outputs, inputs).
        rank: The rank of the product.
        generator: Random numbers for the initial values of A, which are uniform as in a linear layer.
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
        """Return the adapted matrix, (outputs, inputs)."""
        return torch.addmm(weight, self.up, self.down, alpha=_ALPHA_PER_RANK)


def add_adapters(encoder: Encoder, rank: int, generator: torch.Generator) -> None:
    """Freeze an encoder, in place, and give each matrix of its layers a trainable adapter.

    W_Q, W_K and W_V, which are one matrix, share one adapter. The generator of the initial values is on the CPU.
    """
    encoder.requires_grad_(False)
    for linear in _linears(encoder):
        parametrize.register_parametrization(linear, "weight", LoRAParametrization(linear.weight, rank, generator))


def merge_adapters(encoder: Encoder) -> None:
    """Merge each adapter into its matrix and unfreeze the encoder, in place."""
    for linear in _linears(encoder):
        parametrize.remove_parametrizations(linear, "weight", leave_parametrized=True)
    encoder.requires_grad_(True)


def _linears(encoder: Encoder) -> Iterator[Linear]:
    return (module for module in encoder.layers.modules() if isinstance(module, Linear))
