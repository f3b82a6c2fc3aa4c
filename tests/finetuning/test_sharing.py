from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from protembed.config.common import TASKS
from protembed.finetuning.sharing import compute_shared, copy_from_first
from protembed.model.heads import TaskHead
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class Threads(ProcessGroup):
    """A process group of threads, which exchange what they have through a list."""

    exchanged: list[Any] = field(default_factory=list)
    barrier: Barrier = field(default_factory=lambda: Barrier(1))

    def exchange(self, value):
        self.exchanged[self.rank] = value
        self.barrier.wait()
        values = list(self.exchanged)
        self.barrier.wait()
        return values

    def all_reduce(self, tensors, *, is_slow=False):
        sums = [sum(parts) for parts in zip(*self.exchange([tensor.clone() for tensor in tensors]), strict=True)]
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total)

    def broadcast_object(self, value):
        return self.exchange(value)[0]


def run_together(function, num_processes):
    """Call a function in several threads, each with its process group; return the results by rank."""
    exchanged, barrier = [None] * num_processes, Barrier(num_processes, timeout=20)
    groups = [Threads(rank, num_processes, exchanged=exchanged, barrier=barrier) for rank in range(num_processes)]
    with ThreadPoolExecutor(num_processes) as pool:
        return list(pool.map(function, groups))


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "shape_of",
    [lambda number: (), lambda number: (4,), lambda number: (number,), lambda number: (number, 3)],
    ids=["value", "vector", "residues", "residues of vectors"],
)
def test_each_process_computes_its_share_and_has_the_arrays_of_all_items(num_processes, shape_of):
    computed = []

    def compute(numbers):
        computed.extend(numbers)
        return (np.full(shape_of(number), number / 3, np.float32) for number in numbers)

    results = run_together(lambda processes: compute_shared(processes, range(5), compute), num_processes)

    assert sorted(computed) == list(range(5))
    for arrays in results:
        assert [(array.shape, array.dtype) for array in arrays] == [
            (shape_of(number), np.float32) for number in range(5)
        ]
        assert all((array == np.float32(number / 3)).all() for number, array in enumerate(arrays))


def test_no_items_give_no_arrays_and_need_no_exchange():
    assert compute_shared(ProcessGroup(1, 2), [], lambda items: items) == []


def test_all_processes_have_the_head_of_the_first():
    def make_head(processes):
        torch.manual_seed(processes.rank)
        head = TaskHead(3, TASKS["regression"], None)
        head.offset.fill_(processes.rank + 0.25)
        before = head.linear.weight.detach().clone()
        copy_from_first(processes, head)
        return before, head

    (expected, first), (different, second) = run_together(make_head, 2)

    assert not torch.equal(expected, different)
    assert torch.equal(first.linear.weight, expected)
    assert torch.equal(second.linear.weight, expected)
    assert second.offset.item() == 0.25


def test_a_single_process_keeps_its_head():
    head = TaskHead(3, TASKS["regression"], None)
    before = head.linear.weight.detach().clone()

    copy_from_first(SINGLE_PROCESS, head)

    assert torch.equal(head.linear.weight, before)
