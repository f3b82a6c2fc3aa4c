"""How weights are updated: the plain rule, AdamW, parameter groups, the learning rate's course."""

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from protembed.config import OptimizerConfig


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


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """Collect the gradients of all parameters that received one."""
    return [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]


def divide_gradients(optimizer: Optimizer, count: int) -> Tensor:
    """Divide summed gradients by the number of targets, in place, and return their common norm, ()."""
    gradients = gradients_of(optimizer)
    torch._foreach_div_(gradients, count)
    return torch.nn.utils.get_total_norm(gradients)


def clip_gradients(optimizer: Optimizer, norm: Tensor, max_norm: float) -> None:
    """Shrink all gradients alike, in place, so that their common norm does not exceed the largest allowed."""
    shrink = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients_of(optimizer), shrink)
