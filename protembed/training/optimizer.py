"""Updates of the weights: sums of gradients, and the optimisers."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from protembed.config.common import OptimizerName
from protembed.training.distributed import Executor, ProcessGroup
from protembed.training.muon import make_muon
from protembed.training.objective import LossSum
from protembed.training.sharding import local_rows

# AdamW's, as in the training of ESM-2.
_BETAS = (0.9, 0.98)

Gradients = Sequence[Tensor | None]


def set_learning_rate(optimizers: Sequence[Optimizer], learning_rate: float) -> None:
    """Set the learning rate of all parameter groups, times the multiplier of each."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_multiplier", 1.0)


class GradientSum:
    """The sum of the gradients of several micro-batches; None for a parameter that no micro-batch uses."""

    def __init__(self) -> None:
        self._sums: list[Tensor | None] = []

    def differentiate(self, loss: LossSum, parameters: Sequence[Tensor]) -> Gradients:
        """Compute the gradients of a micro-batch for `add`; none where it has no targets."""
        # Not .backward(), which adds to the parameters' gradients: micro-batches are computed concurrently, and their
        # gradients must be summed in a fixed order.
        return torch.autograd.grad(loss.sum, parameters, allow_unused=True) if loss.count else ()

    def add(self, gradients: Gradients) -> None:
        """Add the gradients of one micro-batch, in the order of the parameters."""
        if not self._sums:
            self._sums = list(gradients)
            return
        pairs = [(total, new) for total, new in zip(self._sums, gradients, strict=True) if total is not None]
        torch._foreach_add_([total for total, _ in pairs], [new for _, new in pairs if new is not None])

    def all_reduce(self, parameters: Sequence[Tensor], processes: ProcessGroup) -> None:
        """Sum over all processes; a process without a micro-batch contributes zeros."""
        if processes.size > 1:
            sums = self._sums or [None] * len(parameters)
            self._sums = [
                torch.zeros_like(parameter) if gradient is None else gradient
                for parameter, gradient in zip(parameters, sums, strict=True)
            ]
            processes.all_reduce(self._tensors())

    def divide(self, count: int) -> Tensor:
        """Divide by the number of targets, and return the norm over all parameters, ()."""
        torch._foreach_div_(self._tensors(), count)
        return torch.nn.utils.get_total_norm(self._tensors())

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Scale all gradients by one factor, so that their norm, which `divide` returned, is at most `max_norm`."""
        torch._foreach_mul_(self._tensors(), (max_norm / (norm + 1e-6)).clamp(max=1.0))

    def assign_to(self, parameters: Sequence[Tensor]) -> None:
        """Set the gradients of the parameters, in the order of `add`."""
        for parameter, gradient in zip(parameters, self._sums, strict=True):
            parameter.grad = gradient

    def _tensors(self) -> list[Tensor]:
        return [gradient for gradient in self._sums if gradient is not None]


class ShardedGradientSum(GradientSum):
    """The sum of the gradients of sharded parameters, of which this process holds some rows.

    Each layer's gradients are summed over the processes, and released but for those rows, during every backward pass.
    Gradients of whole weights are thus never in memory, whatever the number of micro-batches.

    Args:
        parameters: Sharded parameters; they lose earlier gradients.
        processes: Processes that hold the other rows.
    """

    def __init__(self, parameters: Sequence[Tensor], processes: ProcessGroup) -> None:
        super().__init__()
        self._processes = processes
        for parameter in parameters:
            parameter.grad = None

    def differentiate(self, loss: LossSum, parameters: Sequence[Tensor]) -> Gradients:
        """Add the gradients of a micro-batch to those of the parameters, in all processes, with or without targets."""
        loss.sum.backward()
        return ()

    def add(self, gradients: Gradients) -> None:
        """Add nothing, because `differentiate` has."""

    def all_reduce(self, parameters: Sequence[Tensor], processes: ProcessGroup) -> None:
        """Collect the rows of this process, which are summed already."""
        self._sums = [local_rows(parameter.grad) for parameter in parameters if parameter.grad is not None]

    def divide(self, count: int) -> Tensor:
        """Divide by the number of targets, and return the norm over all rows of all parameters, ()."""
        squared_norm = super().divide(count).square()
        self._processes.all_reduce([squared_norm])
        return squared_norm.sqrt()

    def assign_to(self, parameters: Sequence[Tensor]) -> None:
        """Leave the parameters their gradients, whose rows were divided and clipped in place."""


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    """Iterate over all weight matrices except embeddings."""
    for submodule in module.modules():
        if not isinstance(submodule, nn.Embedding):
            yield from (parameter for parameter in submodule.parameters(recurse=False) if parameter.ndim > 1)


def make_optimizers(
    module: nn.Module,
    name: OptimizerName,
    weight_decay: float,
    executor: Executor,
    *,
    head: nn.Module | None = None,
    head_lr_multiplier: float = 1.0,
) -> list[Optimizer]:
    """Make the optimisers of a module's trained parameters; `set_learning_rate` sets their learning rate at each step.

    `sgd` is `w ← w - lr · ∂L/∂w`, without momentum, decay or clipping. `adamw` decays the matrices of layers and
    heads, never biases, gammas, betas and embeddings. `muon` updates the matrices of the layers, and AdamW everything
    else at the same learning rate; see `make_muon`.

    The learning rate of `head`, a part of the module without layers, is multiplied.

    Source: Loshchilov and Hutter 2019 (AdamW); Jordan et al. 2024 and Liu et al. 2025 (Muon).
    """
    matrices, layers = set(_matrices(module)), [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    layer_matrices = {matrix for layer in layers for matrix in _matrices(layer)}
    head_parameters = set() if head is None else set(head.parameters())
    with_muon, groups = list[nn.Parameter](), dict[tuple[float, float], list[nn.Parameter]]()
    for parameter in filter(lambda parameter: parameter.requires_grad, module.parameters()):
        if name == "muon" and parameter in layer_matrices:
            with_muon.append(parameter)
            continue
        decay = weight_decay if name != "sgd" and parameter in matrices else 0.0
        lr_multiplier = head_lr_multiplier if parameter in head_parameters else 1.0
        groups.setdefault((decay, lr_multiplier), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": decay, "lr_multiplier": lr_multiplier}
        for (decay, lr_multiplier), parameters in groups.items()
    ]
    if name == "sgd":
        return [SGD(settings, lr=0.0)]
    muon = [make_muon(with_muon, weight_decay, executor)] if name == "muon" else []
    return [*muon, AdamW(settings, lr=0.0, betas=_BETAS, fused=True)]
