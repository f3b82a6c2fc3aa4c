"""What each step of fine-tuning sees: labelled proteins, the windows of a long one together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from protembed.config.common import TOKENS_PER_PACK, Task
from protembed.data.batching import LabelledBatch, Tokens, cut, pack, split_by_budget
from protembed.data.sampling import EpochOrder, EveryProtein
from protembed.data.targets import Answer
from protembed.data.windows import Span, window_spans


@dataclass(frozen=True, kw_only=True)
class LabelledProteins:
    """What a task is learned from.

    Attributes:
        residues: of each protein, (residues,), uint8.
        answers: of each protein; see `protembed.data.targets`.
        task: what the answers are.
        window_residues: longer proteins are cut into windows of this length.
        tokens_per_pack: the most tokens of a pack; only one protein alone can exceed it.
    """

    residues: Sequence[Tokens]
    answers: Sequence[Answer]
    task: Task
    window_residues: int
    tokens_per_pack: int = TOKENS_PER_PACK

    def spans(self, row: int) -> list[Span]:
        """Lay windows over a protein."""
        return window_spans(len(self.residues[row]), self.window_residues)

    def num_tokens(self, row: int) -> int:
        """Count the tokens that a protein costs, those that two windows share twice."""
        return sum(stop - start for start, stop in self.spans(row)) + 2

    def packs(self, rows: Sequence[int]) -> list[LabelledBatch]:
        """Pack some of the proteins, in their order."""
        parts = split_by_budget([self.num_tokens(row) for row in rows], self.tokens_per_pack)
        return [self._pack(rows[part]) for part in parts]

    def _pack(self, rows: Sequence[int]) -> LabelledBatch:
        spans = [self.spans(row) for row in rows]
        crops = [
            (row, cut(self.residues[row], *span)) for row, windows in zip(rows, spans, strict=True) for span in windows
        ]
        batch = pack([crop for _, crop in crops], [row for row, _ in crops])
        answers = [self.answers[row] for row in rows]
        targets = torch.from_numpy((np.concatenate if self.task.per_residue else np.stack)(answers))
        return LabelledBatch(
            tokens=batch.tokens,
            offsets=batch.offsets,
            rows=batch.rows,
            spans=spans,
            targets=targets if targets.dtype == torch.int64 else targets.float(),
            num_residues=sum(len(self.residues[row]) for row in rows),
        )


class LabelledPlan:
    """What each step of fine-tuning sees: proteins and their labels in a seeded order.

    Args:
        proteins: to learn from.
        tokens_per_batch: the most tokens of a step; only a protein longer than half of it can make a step exceed it.
        seed: the run's seed.
    """

    def __init__(self, proteins: LabelledProteins, tokens_per_batch: int, seed: int) -> None:
        self._proteins = proteins
        num_proteins = len(proteins.residues)
        lengths = np.array([proteins.num_tokens(row) for row in range(num_proteins)], dtype=np.int64)
        sampler = EveryProtein(num_proteins)
        self._order = EpochOrder(sampler, lengths.__getitem__, int(lengths.max()), tokens_per_batch, seed)
        self.steps_per_epoch = self._order.steps_per_epoch

    def packs(self, step: int) -> list[LabelledBatch]:
        """Return the packs of a step; a giant that filled several steps' stretches leaves none to the later ones."""
        return self._proteins.packs(self._order.rows(step).tolist())
