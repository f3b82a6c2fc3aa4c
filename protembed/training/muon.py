"""Muon: the optimiser that updates a weight matrix by its orthogonalised momentum.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
scalable for LLM training", section 2.2 (the scale that matches AdamW's, so that both take one learning rate).
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from protembed.device import WorkerPool
from protembed.training.distributed import Executor, ProcessGroup
from protembed.training.sharding import local_rows, rows_of

_MOMENTUM = 0.95
# Coefficients of a quintic that moves all singular values close to one in five iterations, without converging to it.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_EPS = 1e-7
# The typical root mean square of AdamW's updates, according to Liu et al.
_ADAMW_RMS = 0.2


# Numbers of the matrices that are updated at once on a GPU; the iteration holds some five copies of them.
_MAX_NUMBERS_AT_ONCE = 1 << 28


def orthogonalise(matrices: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Move all singular values of matrices close to one by the Newton-Schulz iteration.

    Afterwards they are between about 0.7 and 1.2, unless they were tiny.

    Args:
        matrices: One matrix, (rows, columns), or several, (matrices, rows, columns).
        precision: Type in which the iteration computes.

    Returns:
        The matrices with their singular vectors, shape of `matrices`, in that type.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if is_tall else matrices
    wide = (wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPS)).to(precision)  # no singular value exceeds one
    first, third, fifth = _QUINTIC
    add_product = torch.addmm if wide.ndim == 2 else torch.baddbmm
    for _ in range(_NUM_ITERATIONS):
        gram = wide @ wide.mT
        wide = add_product(wide, add_product(gram, gram, gram, beta=third, alpha=fifth), wide, beta=first)
    return wide.mT if is_tall else wide


class Muon(Optimizer):
    """`torch.optim.Muon` with `match_rms_adamw`, which iterates in the precision of the training.

    torch always iterates in bfloat16, which takes seconds per step on most CPUs, and float32 a few hundredths of a
    second; with AMX, bfloat16 takes a fourth of float32's time (benchmarks/README.md).

    Args:
        matrices: Weight matrices, (rows, columns) each, float32.
        weight_decay: Fraction of a weight that is subtracted in each step, times the learning rate.
        pool: Threads, each of which updates one matrix at a time.
        precision: Type in which the iteration computes; weights and momentum stay in float32.
    """

    def __init__(
        self, matrices: Sequence[Tensor], weight_decay: float, pool: WorkerPool, precision: torch.dtype = torch.float32
    ) -> None:
        super().__init__(list(matrices), {"lr": 0.0, "weight_decay": weight_decay})
        self._pool, self._precision = pool, precision

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no caller passes a closure
        """Update all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            # The largest first, so that no thread starts a long update when the others have finished.
            matrices.sort(key=Tensor.numel, reverse=True)
            update = partial(self._update, learning_rate=group["lr"], weight_decay=group["weight_decay"])
            for _ in self._pool.map(update, matrices):
                pass

    @torch.no_grad()  # again, because this runs on the pool's threads, and each has its own grad mode
    def _update(self, matrix: Tensor, learning_rate: float, weight_decay: float) -> None:
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum = state["momentum_buffer"]
        momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
        update = orthogonalise(matrix.grad.lerp(momentum, _MOMENTUM), self._precision)
        matrix.mul_(1 - learning_rate * weight_decay)
        matrix.sub_(update, alpha=learning_rate * _ADAMW_RMS * math.sqrt(max(matrix.shape)))


class BatchedMuon(Optimizer):
    """`torch.optim.Muon` with `match_rms_adamw`, to the bit, for all matrices of one shape at once.

    torch updates one matrix after the other by about 35 small kernels each, between which a GPU is idle.

    Args:
        matrices: Weight matrices, (rows, columns) each.
        weight_decay: Fraction of a weight that is subtracted in each step, times the learning rate.
    """

    def __init__(self, matrices: Sequence[Tensor], weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no caller passes a closure
        """Update all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                num_at_once = max(1, _MAX_NUMBERS_AT_ONCE // matrices[0].numel())
                for first in range(0, len(matrices), num_at_once):
                    self._update(matrices[first : first + num_at_once], group["lr"], group["weight_decay"])

    def _update(self, matrices: list[Tensor], learning_rate: float, weight_decay: float) -> None:
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
        updates = torch.stack(torch._foreach_lerp(gradients, momenta, _MOMENTUM)).bfloat16()
        torch._foreach_mul_(matrices, 1 - learning_rate * weight_decay)
        scale = _ADAMW_RMS * math.sqrt(max(matrices[0].shape))
        torch._foreach_add_(
            matrices, orthogonalise(updates, torch.bfloat16).float().unbind(), alpha=-learning_rate * scale
        )


class ShardedMuon(Optimizer):
    """Muon of matrices whose rows are divided among several processes, for which an update is one of whole matrices.

    Of the matrices of one shape, each process in turn receives the rows of one, orthogonalises it, and sends the rows
    back. Weights and momentum stay divided.

    Args:
        matrices: Sharded weight matrices, (rows, columns) each, float32.
        weight_decay: Fraction of a weight that is subtracted in each step, times the learning rate.
        processes: Processes that hold the rows.
        precision: Type in which the iteration computes; weights and momentum stay in float32.
    """

    def __init__(
        self, matrices: Sequence[Tensor], weight_decay: float, processes: ProcessGroup, precision: torch.dtype
    ) -> None:
        super().__init__(list(matrices), {"lr": 0.0, "weight_decay": weight_decay})
        self._processes, self._precision = processes, precision

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no caller passes a closure
        """Update all matrices that have a gradient; all processes must call this method."""
        assert closure is None
        size = self._processes.size
        for group in self.param_groups:
            for matrices in _by_shape(group["params"]):
                for first in range(0, len(matrices), size):
                    self._update(matrices[first : first + size], group["lr"], group["weight_decay"])

    def _update(self, matrices: list[Tensor], learning_rate: float, weight_decay: float) -> None:
        """Update at most as many matrices as there are processes, all of one shape."""
        scale = _ADAMW_RMS * math.sqrt(max(matrices[0].shape))
        updates = self._orthogonalised([self._with_momentum(matrix) for matrix in matrices], matrices[0].shape)
        for matrix, update in zip(map(local_rows, matrices), updates, strict=True):
            matrix.mul_(1 - learning_rate * weight_decay)
            matrix.sub_(update.view_as(matrix), alpha=learning_rate * scale)

    def _with_momentum(self, matrix: Tensor) -> Tensor:
        """Add a gradient to the momentum of a matrix, and return the rows of the update that this process holds."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        gradient, momentum = local_rows(matrix.grad), local_rows(state["momentum_buffer"])
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(momentum, _MOMENTUM)

    def _orthogonalised(self, parts: list[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """Orthogonalise the i-th of several matrices in the i-th process, and return this process's rows of all.

        Args:
            parts: Rows of each matrix that this process holds, (rows, columns).
            shape: Shape of the whole matrices.

        Returns:
            The same rows of the orthogonalised matrices, flat.
        """
        rank, size = self._processes.rank, self._processes.size
        num_idle = size - len(parts)  # processes that have no matrix to orthogonalise
        part_sizes = [len(rows_of(shape[0], holder, size)) * shape[1] for holder in range(size)]
        sizes = part_sizes if rank < len(parts) else [0] * size
        flat = [part.flatten() for part in parts] + [parts[0].new_empty(0)] * num_idle
        whole = self._processes.exchange(flat, sizes)
        if len(whole):
            whole = orthogonalise(whole.view(shape), self._precision).to(whole.dtype).flatten()
        sent_back = [part_sizes[rank]] * len(parts)
        rows = self._processes.exchange(whole.split(sizes), sent_back + [0] * num_idle)
        return torch.split(rows, sent_back)


def _by_shape(matrices: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    """Group matrices that have a gradient by their shapes."""
    of_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        if matrix.grad is not None:
            of_shape.setdefault(matrix.shape, []).append(matrix)
    return of_shape.values()


def make_muon(matrices: Sequence[Tensor], weight_decay: float, executor: Executor) -> Optimizer:
    """Make the Muon optimiser of matrices: torch's on a GPU, the same in the precision of the executor on a CPU.

    On a CPU it updates several matrices at once on the threads of the pool. All kinds store the same state for each
    matrix.
    """
    is_on_cpu = matrices[0].device.type == "cpu"
    if executor.processes.is_sharded:
        precision = executor.precision if is_on_cpu else torch.bfloat16
        return ShardedMuon(matrices, weight_decay, executor.processes, precision)
    if is_on_cpu:
        return Muon(matrices, weight_decay, executor.pool, executor.precision)
    return BatchedMuon(matrices, weight_decay)
