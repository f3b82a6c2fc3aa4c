"""Muon: momentum, made orthogonal, as the update of a weight matrix.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
scalable for LLM training", section 2.2 (the scale that matches AdamW's, so that both take one learning rate).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from protembed.device import WorkerPool

_MOMENTUM = 0.95
# A quintic that pulls all singular values towards one in five rounds; it need not reach it.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ROUNDS = 5
_EPS = 1e-7
# The root mean square of AdamW's updates, as Liu et al. found it.
_ADAMW_RMS = 0.2


def make_muon(matrices: Sequence[Tensor], weight_decay: float, pool: WorkerPool) -> Optimizer:
    """Make the optimiser of some weight matrices: torch's own on a GPU, the same iteration in float32 on a CPU."""
    if matrices[0].device.type == "cpu":
        return Muon(matrices, weight_decay, pool)
    return torch.optim.Muon(
        list(matrices), lr=0.0, weight_decay=weight_decay, momentum=_MOMENTUM, adjust_lr_fn="match_rms_adamw"
    )


class Muon(Optimizer):
    """`torch.optim.Muon` with `match_rms_adamw`, in float32.

    torch's own iterates in bfloat16, which takes a CPU seconds a step where float32 takes a few per cent of one.

    Args:
        matrices: the weights, each (rows, columns).
        weight_decay: the share of a weight, times the learning rate, that is taken off in each step.
        pool: updates several matrices side by side.
    """

    def __init__(self, matrices: Sequence[Tensor], weight_decay: float, pool: WorkerPool) -> None:
        super().__init__(list(matrices), {"lr": 0.0, "weight_decay": weight_decay})
        self._pool = pool

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nobody gives it a closure
        """Update all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            present = [matrix for matrix in group["params"] if matrix.grad is not None]
            # The longest work first, so that no worker is left waiting for one that began late.
            present.sort(key=Tensor.numel, reverse=True)
            update = partial(self._update, learning_rate=group["lr"], weight_decay=group["weight_decay"])
            for _ in self._pool.map(update, present):
                pass

    @torch.no_grad()  # again, for this runs on the pool's threads, and each has a mode of its own
    def _update(self, matrix: Tensor, learning_rate: float, weight_decay: float) -> None:
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum = state["momentum_buffer"]
        momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
        update = orthogonalise(matrix.grad.lerp(momentum, _MOMENTUM))
        matrix.mul_(1 - learning_rate * weight_decay)
        matrix.sub_(update, alpha=learning_rate * _ADAMW_RMS * math.sqrt(max(matrix.shape)))


def orthogonalise(matrix: Tensor) -> Tensor:
    """Move all singular values of a matrix close to one, by Newton and Schulz's iteration.

    Args:
        matrix: (rows, columns), float32.

    Returns:
        (rows, columns), float32; singular values between about 0.7 and 1.2 where they were not tiny.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if is_tall else matrix
    wide = wide / wide.norm().clamp(min=_EPS)  # no singular value exceeds one
    first, third, fifth = _QUINTIC
    for _ in range(_NUM_ROUNDS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), wide, beta=first)
    return wide.T if is_tall else wide
