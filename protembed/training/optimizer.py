"""How weights are updated: the plain rule, AdamW, parameter groups, the learning rate's course."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from protembed.config import OptimizerConfig

Gradients = Sequence[Tensor | None]


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Make the optimiser of a module's parameters; its learning rate is set at each step.

    AdamW decays the matrices of layers and heads, never biases, gammas, betas and embeddings. SGD is
    `w ← w - lr · ∂L/∂w` as it stands.

    Source: Loshchilov and Hutter 2019 (AdamW); betas 0.9 and 0.98 as in ESM-2.
    """
    if config.optimizer == "sgd":
        return SGD(module.parameters(), lr=0.0)
    decayed = [
        parameter
        for part in module.modules()
        for parameter in part.parameters(recurse=False)
        if parameter.ndim > 1 and not isinstance(part, nn.Embedding)
    ]
    is_decayed = set(map(id, decayed))
    others = [parameter for parameter in module.parameters() if id(parameter) not in is_decayed]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


def learning_rate_at(step: int, num_steps: int, peak: float, *, warmup_steps: int, decay_share: float) -> float:
    """Compute a step's learning rate: linear warm-up, a plateau, a linear fall to zero over the last share.

    Args:
        step: from 0.
        num_steps: of the whole run.
        peak: of the plateau.
        warmup_steps: the plateau is reached at this step.
        decay_share: the share of all steps over which the rate falls.

    Source: Hu et al. 2024, "MiniCPM", section 4 (warm-up, stable, decay).

    >>> [learning_rate_at(step, 8, 1.0, warmup_steps=2, decay_share=0.5) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    num_decay_steps = max(1.0, decay_share * num_steps)
    rising = (step + 1) / warmup_steps if warmup_steps else 1.0
    falling = (num_steps - step) / num_decay_steps if decay_share else 1.0
    return peak * min(1.0, rising, falling)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class GradientSum:
    """Gradients of several packs, summed; a parameter that none of them uses has none."""

    def __init__(self) -> None:
        self._sums: list[Tensor | None] = []

    def add(self, gradients: Gradients) -> None:
        """Add the gradients of one pack, in the order of the parameters."""
        if not self._sums:
            self._sums = list(gradients)
            return
        pairs = [(total, new) for total, new in zip(self._sums, gradients, strict=True) if total is not None]
        torch._foreach_add_([total for total, _ in pairs], [new for _, new in pairs if new is not None])

    def divide(self, count: int) -> Tensor:
        """Divide by the number of targets, and return the common norm, ()."""
        torch._foreach_div_(self._present(), count)
        return torch.nn.utils.get_total_norm(self._present())

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Shrink all alike, so that their common norm, given, does not exceed the largest allowed."""
        torch._foreach_mul_(self._present(), (max_norm / (norm + 1e-6)).clamp(max=1.0))

    def hand_to(self, parameters: Sequence[Tensor]) -> None:
        """Set the gradients of the parameters."""
        for parameter, gradient in zip(parameters, self._sums, strict=True):
            parameter.grad = gradient

    def _present(self) -> list[Tensor]:
        return [gradient for gradient in self._sums if gradient is not None]
