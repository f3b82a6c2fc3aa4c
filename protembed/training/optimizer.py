"""How weights are updated: the plain rule, AdamW, Muon, parameter groups, the learning rate's course."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from protembed.config.common import OptimizerName, ScheduleName
from protembed.device import WorkerPool
from protembed.training.distributed import ProcessGroup
from protembed.training.muon import make_muon

Gradients = Sequence[Tensor | None]

# ESM-2's, for AdamW wherever it is used.
_BETAS = (0.9, 0.98)


def make_optimizers(
    module: nn.Module,
    name: OptimizerName,
    weight_decay: float,
    pool: WorkerPool,
    *,
    head: nn.Module | None = None,
    head_lr_multiplier: float = 1.0,
) -> list[Optimizer]:
    """Make what updates a module's trained parameters, each of them once; the learning rate is set at each step.

    `sgd` is `w ← w - lr · ∂L/∂w` as it stands. `adamw` decays the matrices of layers and heads, never biases, gammas,
    betas and embeddings. `muon` takes the matrices of the layers, and leaves everything else to AdamW at the same
    learning rate.

    Args:
        module: an objective; its parameters are where they will be trained.
        name: the rule.
        weight_decay: of weight matrices (muon, adamw).
        pool: updates matrices side by side on a CPU.
        fast: a part of the module that learns faster, such as a new head on a trained encoder; no layer.
        head_lr_multiplier: how many times faster.

    Source: Loshchilov and Hutter 2019 (AdamW); Jordan et al. 2024 and Liu et al. 2025 (Muon).
    """
    head_parameters = set() if head is None else set(head.parameters())
    if name == "sgd":
        return [SGD(_groups_by_rate(module, set(module.parameters()), head_parameters, head_lr_multiplier), lr=0.0)]
    optimizers, taken = list[Optimizer](), set[nn.Parameter]()
    if name == "muon":
        taken = set(_layer_matrices(module))
        optimizers.append(make_muon(_ordered(module, taken), weight_decay, pool))
    decayed = set(_matrices(module)) - taken
    groups = [
        {**group, "weight_decay": decay}
        for chosen, decay in ((decayed, weight_decay), (set(module.parameters()) - taken - decayed, 0.0))
        for group in _groups_by_rate(module, chosen, head_parameters, head_lr_multiplier)
    ]
    return [*optimizers, AdamW(groups, lr=0.0, betas=_BETAS, fused=True)]


def _groups_by_rate(
    module: nn.Module, chosen: set[nn.Parameter], head_parameters: set[nn.Parameter], factor: float
) -> list[dict[str, Any]]:
    """Group parameters by how fast they learn."""
    groups = [
        {"params": _ordered(module, chosen - head_parameters), "lr_multiplier": 1.0},
        {"params": _ordered(module, chosen & head_parameters), "lr_multiplier": factor},
    ]
    return [group for group in groups if group["params"]]


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    """Walk over all weight matrices that are no embeddings."""
    for part in module.modules():
        if not isinstance(part, nn.Embedding):
            yield from (parameter for parameter in part.parameters(recurse=False) if parameter.ndim > 1)


def _layer_matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    """Walk over the weight matrices of the encoder's layers."""
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            yield from _matrices(part)


def _ordered(module: nn.Module, chosen: set[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter in chosen and parameter.requires_grad]


def learning_rate_at(
    step: int,
    num_steps: int,
    peak: float,
    *,
    warmup_steps: int,
    decay_steps: int,
    schedule: ScheduleName = "stable",
) -> float:
    """Compute a step's learning rate.

    `stable` rises, stays, and falls linearly to zero over the last steps; `cosine` rises and falls to zero
    along half a wave.

    Args:
        step: from 0.
        num_steps: of the whole run.
        peak: the highest rate.
        warmup_steps: it is reached at this step.
        decay_steps: the last steps, over which the rate falls (`stable`).
        schedule: the course.

    Source: Hu et al. 2024, "MiniCPM", section 4 (warm-up, stable, decay); Loshchilov and Hutter 2017 (cosine).

    >>> [learning_rate_at(step, 8, 1.0, warmup_steps=2, decay_steps=4) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    rising = (step + 1) / warmup_steps if warmup_steps else 1.0
    if schedule == "cosine":
        share = max(0, step - warmup_steps) / max(1, num_steps - warmup_steps)
        return peak * min(rising, (1 + math.cos(math.pi * share)) / 2)
    falling = (num_steps - step) / decay_steps if decay_steps else 1.0
    return peak * min(1.0, rising, falling)


def set_learning_rate(optimizers: Sequence[Optimizer], learning_rate: float) -> None:
    """Set the learning rate of all parameters, times the factor of those that learn faster."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_multiplier", 1.0)


class GradientSum:
    """Gradients of several micro-batches, summed; a parameter that none of them uses has none."""

    def __init__(self) -> None:
        self._sums: list[Tensor | None] = []

    def add(self, gradients: Gradients) -> None:
        """Add the gradients of one micro-batch, in the order of the parameters."""
        if not self._sums:
            self._sums = list(gradients)
            return
        pairs = [(total, new) for total, new in zip(self._sums, gradients, strict=True) if total is not None]
        torch._foreach_add_([total for total, _ in pairs], [new for _, new in pairs if new is not None])

    def all_reduce(self, parameters: Sequence[Tensor], processes: ProcessGroup) -> None:
        """Sum over all processes; one that had no micro-batch takes part with zeros."""
        if processes.size > 1:
            sums = self._sums or [None] * len(parameters)
            self._sums = [
                torch.zeros_like(parameter) if gradient is None else gradient
                for parameter, gradient in zip(parameters, sums, strict=True)
            ]
            processes.all_reduce(self._present())

    def divide(self, count: int) -> Tensor:
        """Divide by the number of targets, and return the common norm, ()."""
        torch._foreach_div_(self._present(), count)
        return torch.nn.utils.get_total_norm(self._present())

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Shrink all alike, so that their common norm, given, does not exceed the largest allowed."""
        torch._foreach_mul_(self._present(), (max_norm / (norm + 1e-6)).clamp(max=1.0))

    def assign_to(self, parameters: Sequence[Tensor]) -> None:
        """Set the gradients of the parameters."""
        for parameter, gradient in zip(parameters, self._sums, strict=True):
            parameter.grad = gradient

    def _present(self) -> list[Tensor]:
        return [gradient for gradient in self._sums if gradient is not None]
