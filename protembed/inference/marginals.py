"""What a masked-language model says of single residues: the probabilities of the 20 amino acids at a position."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.alphabet import AMINO_ACID_IDS, MASK, encode, is_amino_acid
from protembed.data.batching import Batch, Tokens, make_crop
from protembed.data.windows import most_central_window, window_spans
from protembed.device import to_device
from protembed.inference.engine import Engine
from protembed.model.checkpoint import Checkpoint
from protembed.model.esm2 import Encoder
from protembed.model.heads import MaskedLMHead

LogProbabilities = NDArray[np.float32]
_HIDDEN_ONE = [0]


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionQuery:
    """A protein, and where in it the model is asked.

    Attributes:
        sequence: residues of the alphabet.
        positions: (positions,), int64, from 0, ascending, at least one.
    """

    sequence: str
    positions: NDArray[np.int64]

    @classmethod
    def all_positions(cls, sequence: str) -> "PositionQuery":
        """Ask at every standard amino acid: at others there is nothing to be right about."""
        return cls(sequence=sequence, positions=np.flatnonzero(is_amino_acid(encode(sequence))))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Crop:
    """A protein or a window of it, as the model is shown it.

    Attributes:
        tokens: (tokens,), uint8.
        answers: which rows of what is computed of it answer the query.
    """

    tokens: Tokens
    answers: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Marginals:
    """The probabilities of the 20 amino acids at positions of proteins: the softmax over their 20 logits alone.

    Of a protein longer than a window each position is asked in the window in which it lies most centrally.

    Attributes:
        encoder: on the device where it is to compute.
        lm_head: its masked-LM head, likewise.
        window_residues: the longest stretch that is computed at once.
        on_crop: told the tokens of each crop that is finished.
    """

    encoder: Encoder
    lm_head: MaskedLMHead
    window_residues: int
    on_crop: Callable[[int], None]

    def masked(
        self, engine: Engine, queries: Iterable[PositionQuery]
    ) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        """Ask with each position masked alone: one pass for each.

        Args:
            engine: computes.
            queries: taken as they are needed.

        Yields:
            Each query with the log probabilities at its positions, (positions, 20) in the order of the alphabet.
        """
        return self._ask(engine, queries, self._masked_copies, self._log_probs_at_mask)

    def unmasked(
        self, engine: Engine, queries: Iterable[PositionQuery]
    ) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        """Ask with nothing masked: one pass for each protein, or for each window; see `masked`."""
        return self._ask(engine, queries, self._windows, self._everywhere)

    def num_tokens(self, query: PositionQuery, *, masked: bool) -> int:
        """Count the tokens that are computed to answer a query."""
        return sum(len(crop.tokens) for crop in (self._masked_copies if masked else self._windows)(query))

    def _ask(
        self,
        engine: Engine,
        queries: Iterable[PositionQuery],
        crops_of: Callable[[PositionQuery], Iterable[_Crop]],
        compute: Callable[[Batch], Sequence[LogProbabilities]],
    ) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        waiting = deque[PositionQuery]()

        def crops() -> Iterator[_Crop]:
            for query in queries:
                waiting.append(query)
                yield from crops_of(query)

        parts: list[LogProbabilities] = []
        num_answered = 0
        for crop, computed in engine.run_crops(compute, crops()):
            parts.append(computed[crop.answers])
            num_answered += len(crop.answers)
            self.on_crop(len(crop.tokens))
            if num_answered == len(waiting[0].positions):
                yield waiting.popleft(), np.concatenate(parts)
                parts, num_answered = [], 0

    def _masked_copies(self, query: PositionQuery) -> Iterator[_Crop]:
        residues = encode(query.sequence)
        spans = window_spans(len(residues), self.window_residues)
        for position in query.positions:
            hidden, residues[position] = residues[position], MASK
            yield _Crop(tokens=make_crop(residues, *most_central_window(spans, int(position))), answers=_HIDDEN_ONE)
            residues[position] = hidden

    def _windows(self, query: PositionQuery) -> Iterator[_Crop]:
        residues = encode(query.sequence)
        spans = window_spans(len(residues), self.window_residues)
        for (start, stop), inside in groupby(
            query.positions.tolist(), lambda position: most_central_window(spans, position)
        ):
            first = start - (start == 0)  # <cls> stands before the first window
            yield _Crop(tokens=make_crop(residues, start, stop), answers=[position - first for position in inside])

    def _log_probs_at_mask(self, batch: Batch) -> list[LogProbabilities]:
        """Compute the log probabilities at the one mask of each crop, (1, 20) each."""
        hidden = self._hidden(batch)
        return np.split(
            self._log_probabilities(hidden[to_device(batch.tokens == MASK, hidden.device)]), len(batch.rows)
        )

    def _everywhere(self, batch: Batch) -> list[LogProbabilities]:
        """Compute the log probabilities at all tokens of each crop, (tokens, 20) each."""
        return np.split(self._log_probabilities(self._hidden(batch)), batch.offsets[1:-1].tolist())

    def _hidden(self, batch: Batch) -> Tensor:
        layout = self.encoder.layout(batch.offsets)
        hidden: Tensor = self.encoder(to_device(batch.tokens, layout.offsets.device), layout)  # (tokens, dim)
        return hidden

    def _log_probabilities(self, hidden: Tensor) -> LogProbabilities:
        logits: Tensor = self.lm_head(hidden, self.encoder.embedding.weight, AMINO_ACID_IDS)  # (n, 20)
        values: LogProbabilities = logits.log_softmax(-1).cpu().numpy()
        return values


def marginals_of(
    checkpoint: Checkpoint,
    *,
    window_residues: int | None = None,
    on_crop: Callable[[int], None] = lambda num_tokens: None,
) -> Marginals:
    """Ask a model that was loaded; see `Marginals`.

    Args:
        checkpoint: the model.
        window_residues: the longest stretch that is computed at once; by default what the model records.
        on_crop: told the tokens of each crop that is finished.
    """
    return Marginals(
        encoder=checkpoint.encoder,
        lm_head=checkpoint.require_lm_head(),
        window_residues=window_residues or checkpoint.metadata.window_residues,
        on_crop=on_crop,
    )
