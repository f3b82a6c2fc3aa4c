"""The one inference engine: packs proteins, computes on worker threads, gives results in the input's order.

What is computed is the caller's: a function from a batch to one result per protein.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from protembed.config.shared import TOKENS_PER_PACK
from protembed.data.alphabet import encode
from protembed.data.batching import Batch, cut, pack, split_by_budget
from protembed.device import WorkerPool


class HasSequence(Protocol):
    """Anything with a sequence of residues."""

    @property
    def sequence(self) -> str:
        """Upper-case residues of the alphabet."""
        ...


Protein = TypeVar("Protein", bound=HasSequence)
Result = TypeVar("Result")
Compute = Callable[[Batch], Iterable[Result]]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How proteins are grouped and computed.

    Attributes:
        pool: computes packs side by side.
        tokens_per_pack: the most tokens of a pack; a longer protein is a pack of its own.
        tokens_per_window: the most tokens that are held, with their results, before these are handed over.
    """

    pool: WorkerPool
    tokens_per_pack: int = TOKENS_PER_PACK
    tokens_per_window: int = 65_536

    def run(self, compute: Compute[Result], proteins: Iterable[Protein]) -> Iterator[tuple[Protein, Result]]:
        """Compute something for each protein, whole and in a pack with others.

        Args:
            compute: from a batch of whole proteins, with `<cls>` and `<eos>`, to one result each; called on several
                threads, without gradients. The batch's rows number the proteins of this call from 0.
            proteins: read as they are needed; a bounded window of them is held.

        Yields:
            Each protein with its result, in the input's order.
        """

        def compute_without_gradients(batch: Batch) -> Iterable[Result]:
            with torch.inference_mode():
                return list(compute(batch))

        first_row = 0
        for window in self._windows(proteins):
            yield from self._run_window(compute_without_gradients, window, first_row)
            first_row += len(window)

    def _windows(self, proteins: Iterable[Protein]) -> Iterator[list[Protein]]:
        window: list[Protein] = []
        num_tokens = 0
        for protein in proteins:
            window.append(protein)
            num_tokens += len(protein.sequence) + 2
            if num_tokens >= self.tokens_per_window:
                yield window
                window, num_tokens = [], 0
        if window:
            yield window

    def _run_window(
        self, compute: Compute[Result], window: list[Protein], first_row: int
    ) -> Iterator[tuple[Protein, Result]]:
        # Longest first: no worker is left alone with a giant at the end.
        order = sorted(range(len(window)), key=lambda index: -len(window[index].sequence))
        crops = [encode(window[index].sequence) for index in order]
        crops = [cut(residues, 0, len(residues)) for residues in crops]
        parts = list(split_by_budget([len(crop) for crop in crops], self.tokens_per_pack))
        batches = [pack(crops[part], [first_row + index for index in order[part]]) for part in parts]
        results = {
            index: result
            for part, outputs in zip(parts, self.pool.map(compute, batches), strict=True)
            for index, result in zip(order[part], outputs, strict=True)
        }
        for index, protein in enumerate(window):
            yield protein, results.pop(index)
