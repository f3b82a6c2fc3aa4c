"""The probabilities that a masked-language model gives the 20 amino acids at positions of proteins."""

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
_MASKED_ROW = [0]


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionQuery:
    """A protein, and the positions at which probabilities are computed.

    Attributes:
        sequence: Residues of the alphabet, upper case.
        positions: The positions, (positions,), int64, from 0, ascending, at least one.
    """

    sequence: str
    positions: NDArray[np.int64]

    @classmethod
    def all_positions(cls, sequence: str) -> "PositionQuery":
        """Query every standard amino acid of a protein; the others are no targets."""
        return cls(sequence=sequence, positions=np.flatnonzero(is_amino_acid(encode(sequence))))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Crop:
    """A protein or a window of it, as the model sees it.

    Attributes:
        tokens: Token ids, (tokens,), uint8.
        rows: The rows of the computed log probabilities that belong to the query.
    """

    tokens: Tokens
    rows: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Marginals:
    """Computes the probabilities of the 20 amino acids at positions of proteins: a softmax over their 20 logits alone.

    In a protein longer than a window, each position is computed in the window in which it lies most centrally.

    Attributes:
        encoder: The encoder, on the device where it computes.
        lm_head: The masked-LM head of the encoder, on the same device.
        window_residues: The length of a window, in residues.
        on_crop: Called with the number of tokens of each crop when it is finished.
    """

    encoder: Encoder
    lm_head: MaskedLMHead
    window_residues: int
    on_crop: Callable[[int], None]

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        window_residues: int | None = None,
        on_crop: Callable[[int], None] = lambda num_tokens: None,
    ) -> "Marginals":
        """Use a model that was loaded.

        Args:
            checkpoint: The model.
            window_residues: The length of a window, in residues; None for the one in the model's metadata.
            on_crop: Called with the number of tokens of each crop when it is finished.

        Raises:
            ModelFormatError: The model has no masked-LM head.
        """
        return cls(
            encoder=checkpoint.encoder,
            lm_head=checkpoint.require_lm_head(),
            window_residues=window_residues or checkpoint.metadata.window_residues,
            on_crop=on_crop,
        )

    def masked_log_probs(
        self, engine: Engine, queries: Iterable[PositionQuery]
    ) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        """Compute log probabilities with each position masked alone, in one pass per position.

        Args:
            engine: The inference engine.
            queries: The queries, read when they are needed.

        Yields:
            Each query with the log probabilities at its positions, (positions, 20), float32, in nats and in the order
            of the alphabet.
        """
        return self._run(engine, queries, self._masked_copies, self._log_probs_at_mask)

    def unmasked_log_probs(
        self, engine: Engine, queries: Iterable[PositionQuery]
    ) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        """Compute log probabilities with nothing masked, in one pass per protein or window.

        Args:
            engine: The inference engine.
            queries: The queries, read when they are needed.

        Yields:
            Each query with the log probabilities at its positions, (positions, 20), float32, in nats and in the order
            of the alphabet.
        """
        return self._run(engine, queries, self._windows, self._log_probs_at_all_tokens)

    def num_tokens(self, query: PositionQuery, *, masked: bool) -> int:
        """Count the tokens that are computed for a query."""
        return sum(len(crop.tokens) for crop in (self._masked_copies if masked else self._windows)(query))

    def _run(
        self,
        engine: Engine,
        queries: Iterable[PositionQuery],
        crops_of: Callable[[PositionQuery], Iterable[_Crop]],
        compute: Callable[[Batch], Sequence[LogProbabilities]],
    ) -> Iterator[tuple[PositionQuery, LogProbabilities]]:
        pending = deque[PositionQuery]()

        def crops() -> Iterator[_Crop]:
            for query in queries:
                pending.append(query)
                yield from crops_of(query)

        parts: list[LogProbabilities] = []
        num_computed = 0
        for crop, computed in engine.run_crops(compute, crops()):
            parts.append(computed[crop.rows])
            num_computed += len(crop.rows)
            self.on_crop(len(crop.tokens))
            if num_computed == len(pending[0].positions):
                yield pending.popleft(), np.concatenate(parts)
                parts, num_computed = [], 0

    def _masked_copies(self, query: PositionQuery) -> Iterator[_Crop]:
        residues = encode(query.sequence)
        spans = window_spans(len(residues), self.window_residues)
        for position in query.positions:
            original, residues[position] = residues[position], MASK
            yield _Crop(tokens=make_crop(residues, *most_central_window(spans, int(position))), rows=_MASKED_ROW)
            residues[position] = original

    def _windows(self, query: PositionQuery) -> Iterator[_Crop]:
        residues = encode(query.sequence)
        spans = window_spans(len(residues), self.window_residues)
        for (start, stop), inside in groupby(
            query.positions.tolist(), lambda position: most_central_window(spans, position)
        ):
            first = start - (start == 0)  # <cls> stands before the first window
            yield _Crop(tokens=make_crop(residues, start, stop), rows=[position - first for position in inside])

    def _log_probs_at_mask(self, batch: Batch) -> list[LogProbabilities]:
        """Compute the log probabilities at the single mask of each crop, (1, 20) each."""
        hidden = self._hidden(batch)
        return np.split(
            self._log_probabilities(hidden[to_device(batch.tokens == MASK, hidden.device)]), len(batch.rows)
        )

    def _log_probs_at_all_tokens(self, batch: Batch) -> list[LogProbabilities]:
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
