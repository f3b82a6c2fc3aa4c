"""The probabilities that a masked-language model gives the 20 amino acids at positions of proteins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.common import Span
from protembed.data.alphabet import (
    AMINO_ACID_IDS,
    FIRST_AMINO_ACID,
    MASK,
    NUM_AMINO_ACIDS,
    TOKENS,
    encode,
    is_amino_acid,
)
from protembed.data.batching import Batch, Tokens, make_crop
from protembed.data.windows import most_central_window, window_spans
from protembed.device import to_device
from protembed.inference.computation import Computation, take_states
from protembed.inference.engine import InferenceJob
from protembed.model.checkpoint import Checkpoint
from protembed.model.encoder import Encoder
from protembed.model.heads import MaskedLMHead
from protembed.model.onednn_linear import padding_for

LogProbabilities = NDArray[np.float32]

# Stands in a crop for the residue that is asked about, because others may be masked too; the model sees `<mask>`.
_ASKED = len(TOKENS)


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionQuery:
    """A protein, and the positions at which probabilities are computed.

    Attributes:
        residues: Token ids without `<cls>` and `<eos>`, (residues,), uint8; those of `<mask>` stay masked throughout.
        positions: The positions, (positions,), int64, from 0, ascending.
    """

    residues: Tokens
    positions: NDArray[np.int64]

    @classmethod
    def amino_acids(cls, sequence: str) -> "PositionQuery":
        """Query every standard amino acid of a protein; the others are no targets."""
        residues = encode(sequence)
        return cls(residues=residues, positions=np.flatnonzero(is_amino_acid(residues)))

    @classmethod
    def masked(cls, residues: Tokens) -> "PositionQuery":
        """Query every position of a protein that is masked, by its token ids as in `residues`."""
        return cls(residues=residues, positions=np.flatnonzero(residues == MASK))

    @property
    def columns(self) -> NDArray[np.int64]:
        """Index in the alphabet of the residue at each position, (positions,), if all of them are standard."""
        return self.residues[self.positions].astype(np.int64) - FIRST_AMINO_ACID

    def select_own(self, log_probs: LogProbabilities) -> NDArray[np.float32]:
        """Select the log probability of the residue that the protein has at each position, (positions,).

        Args:
            log_probs: Log probabilities of the amino acids at the positions, (positions, 20); all of the protein's
                residues there are standard.
        """
        columns = self.columns
        return log_probs[np.arange(len(columns)), columns]


@dataclass(frozen=True, kw_only=True)
class Marginals:
    """Computes the probabilities of the 20 amino acids at positions of proteins: a softmax over their 20 logits alone.

    In a protein longer than a window, each position is computed in the window in which it lies most centrally.
    """

    encoder: Encoder
    lm_head: MaskedLMHead
    window_residues: int

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, window_residues: int | None = None) -> "Marginals":
        """Use a model that was loaded, with the window in its metadata unless another is given.

        Raises:
            ModelFormatError: The model has no masked-LM head.
        """
        return cls(
            encoder=checkpoint.encoder,
            lm_head=checkpoint.require_lm_head(),
            window_residues=window_residues or checkpoint.metadata.window_residues,
        )

    def masked(self) -> InferenceJob[LogProbabilities]:
        """Make the job that computes log probabilities with each position masked alone, in one pass per position.

        The items are of `PositionQuery`; results are (positions, 20), float32, in nats, in the order of the alphabet.
        """
        return InferenceJob(crops=self._masked_copies, compute=self._at_asked, join=self._concatenate, is_streamed=True)

    def unmasked(self) -> InferenceJob[LogProbabilities]:
        """Make the job that computes log probabilities with no position masked, in one pass per protein or window.

        Items and results are those of `masked`.
        """
        return InferenceJob(crops=self._windows, compute=self._at_all_tokens, join=self._select, is_streamed=True)

    def _masked_copies(self, query: PositionQuery) -> Iterator[Tokens]:
        residues = query.residues.copy()
        for position, span in self._centred(query):
            residues[position] = _ASKED
            yield make_crop(residues, *span)
            residues[position] = query.residues[position]

    def _windows(self, query: PositionQuery) -> Iterator[Tokens]:
        for span, _ in groupby(self._centred(query), itemgetter(1)):
            yield make_crop(query.residues, *span)

    def _centred(self, query: PositionQuery) -> Iterator[tuple[int, Span]]:
        """Yield each position with the window in which it lies most centrally."""
        spans = window_spans(len(query.residues), self.window_residues)
        for position in query.positions.tolist():
            yield position, most_central_window(spans, position)

    def _at_asked(self, batch: Batch) -> Computation[list[LogProbabilities]]:
        """Compute the log probabilities at the residue asked about in each crop, (1, 20) each."""
        is_asked = batch.tokens == _ASKED
        masked = replace(batch, tokens=batch.tokens.masked_fill(is_asked, MASK))
        hidden = yield from self._hidden(masked, is_asked.nonzero().squeeze(1))  # (crops, dim)
        return np.split(self._log_probabilities(hidden), len(batch.rows))

    def _at_all_tokens(self, batch: Batch) -> Computation[list[LogProbabilities]]:
        """Compute the log probabilities at all tokens of each crop, (tokens, 20) each."""
        hidden = yield from self._hidden(batch)
        return np.split(self._log_probabilities(hidden), batch.offsets[1:-1].tolist())

    def _select(self, query: PositionQuery, windows: Sequence[LogProbabilities]) -> LogProbabilities:
        """Select the log probabilities of the positions from those of all tokens of the windows."""
        selected = []
        for window, ((start, _), inside) in zip(windows, groupby(self._centred(query), itemgetter(1)), strict=True):
            first = start - (start == 0)  # <cls> stands before the first window
            selected.append(window[[position - first for position, _ in inside]])
        return self._concatenate(query, selected)

    def _concatenate(self, query: PositionQuery, parts: Sequence[LogProbabilities]) -> LogProbabilities:
        return np.concatenate([np.empty((0, NUM_AMINO_ACIDS), np.float32), *parts])

    def _hidden(self, batch: Batch, indices: Tensor | None = None) -> Computation[Tensor]:
        """Compute the last hidden states of all tokens, or of those at some indices, (tokens, dim)."""
        layout = self.encoder.layout(batch.offsets)
        selected = None if indices is None else layout.select(indices)
        states = self.encoder.hidden_states(to_device(batch.tokens, layout.offsets.device), layout, selected)
        (hidden,) = yield from take_states(states, [self.encoder.shape.num_layers])
        return hidden

    def _log_probabilities(self, hidden: Tensor) -> LogProbabilities:
        # MKL adds up products of few rows in another order; a position must have the same bits whatever else is asked.
        padded = F.pad(hidden, (0, 0, 0, padding_for(len(hidden), hidden.device)))
        logits: Tensor = self.lm_head(padded, self.encoder.embedding.weight, AMINO_ACID_IDS)[: len(hidden)]  # (n, 20)
        values: LogProbabilities = logits.log_softmax(-1).cpu().numpy()
        return values
