"""Batches of labelled proteins: micro-batches of tokens and targets, and the batch of each step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from protembed.config.common import MICRO_BATCH_TOKENS, Span, Task
from protembed.data.batching import LabelledBatch, Tokens, balance, concatenate, make_crop, split_by_budget
from protembed.data.sampling import EpochSampler, UniformSampler
from protembed.data.windows import window_spans
from protembed.finetuning.targets import Target
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True, kw_only=True)
class LabelledDataset:
    """Proteins and their targets, from which a task is learned.

    Attributes:
        residues: Residues of each protein as tokens, (residues,), uint8.
        window_residues: Length of the windows that longer proteins are cut into.
        micro_batch_tokens: Largest number of tokens of a micro-batch; only a single protein can exceed it.
    """

    residues: Sequence[Tokens]
    targets: Sequence[Target]
    task: Task
    window_residues: int
    micro_batch_tokens: int = MICRO_BATCH_TOKENS

    def spans(self, row: int) -> list[Span]:
        """Return the windows of a protein, (start, stop) of each in residues."""
        return window_spans(len(self.residues[row]), self.window_residues)

    def num_tokens(self, row: int) -> int:
        """Count the tokens of a protein's windows; tokens that two windows share are counted twice."""
        return sum(stop - start for start, stop in self.spans(row)) + 2

    def micro_batches(self, rows: Sequence[int]) -> list[LabelledBatch]:
        """Make micro-batches of some proteins, in the order of `rows`."""
        slices = split_by_budget([self.num_tokens(row) for row in rows], self.micro_batch_tokens)
        return [self._concatenate(rows[chosen]) for chosen in slices]

    def _concatenate(self, rows: Sequence[int]) -> LabelledBatch:
        spans = [self.spans(row) for row in rows]
        crops = [
            (row, make_crop(self.residues[row], *span))
            for row, windows in zip(rows, spans, strict=True)
            for span in windows
        ]
        batch = concatenate([crop for _, crop in crops], [row for row, _ in crops])
        of_rows = [self.targets[row] for row in rows]
        targets = torch.from_numpy((np.concatenate if self.task.per_residue else np.stack)(of_rows))
        return LabelledBatch(
            **vars(batch),
            spans=spans,
            targets=targets if targets.dtype == torch.int64 else targets.float(),
            num_residues=sum(len(self.residues[row]) for row in rows),
        )


class FinetuningBatches:
    """The batch of each step of fine-tuning: proteins and their targets in a seeded order.

    Only a protein longer than half of `batch_tokens` can make a step exceed it. Each of several processes gets its
    share of a step.

    Attributes:
        steps_per_epoch: Number of steps in which every protein is seen once.
    """

    def __init__(
        self, proteins: LabelledDataset, batch_tokens: int, seed: int, processes: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self._proteins, self._processes = proteins, processes
        num_proteins = len(proteins.residues)
        lengths = np.array([proteins.num_tokens(row) for row in range(num_proteins)], dtype=np.int64)
        sampler = UniformSampler(num_proteins)
        self._order = EpochSampler(sampler, lengths.__getitem__, int(lengths.max()), batch_tokens, seed)
        self.steps_per_epoch = self._order.steps_per_epoch

    def micro_batches(self, step: int) -> list[LabelledBatch]:
        """Return this process's micro-batches of a step; none if a very long protein before it used up its tokens."""
        return self._proteins.micro_batches(self._share(self._order.rows(step).tolist()))

    def _share(self, rows: list[int]) -> list[int]:
        """Choose this process's proteins of a step, so that all processes have about as many tokens."""
        if self._processes.size == 1:
            return rows
        lengths = [self._proteins.num_tokens(row) for row in rows]
        groups = balance(lengths, max(1, -(-sum(lengths) // self._processes.size)))
        mine = groups[self._processes.rank] if self._processes.rank < len(groups) else []
        return [rows[index] for index in mine]
