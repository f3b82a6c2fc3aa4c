"""Masked positions filled in: the most probable residues at each, or whole sequences drawn position by position."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch

from protembed.data.alphabet import AMINO_ACIDS, FIRST_AMINO_ACID, MASK, NUM_SPECIAL_TOKENS, decode, encode
from protembed.data.batching import Tokens
from protembed.data.hashing import sequence_sha256
from protembed.data.masking import Random, frozen_random
from protembed.inference.embedding import check_finite
from protembed.inference.engine import Engine
from protembed.inference.marginals import LogProbabilities, Marginals, PositionQuery

# Drafts that are filled in together, each by one position in a round; enough to occupy the workers.
_DRAFTS_PER_ROUND = 64
# Stands for 0, at which only the most probable residue is left; a smaller one would overflow.
_MIN_TEMPERATURE = 1e-300


class RankedResidue(NamedTuple):
    """One of the most probable residues at a masked position.

    Attributes:
        position: Position in the protein, from 1.
        rank: 1 for the most probable residue.
        residue: One of the 20 amino acids.
        probability: Its probability.
    """

    position: int
    rank: int
    residue: str
    probability: float


def rank_residues(query: PositionQuery, log_probs: LogProbabilities, top: int) -> Iterator[RankedResidue]:
    """Yield the most probable residues at each position of a query, whose log probabilities are (positions, 20)."""
    order = np.argsort(-log_probs, axis=1, kind="stable")[:, :top]  # (positions, top)
    for position, columns, row in zip(query.positions.tolist(), order.tolist(), log_probs, strict=True):
        for rank, column in enumerate(columns, start=1):
            yield RankedResidue(position + 1, rank, AMINO_ACIDS[column], float(np.exp(row[column], dtype=np.float64)))


@dataclass(kw_only=True, eq=False)
class Draft:
    """A sequence whose masked positions are being filled in.

    Attributes:
        id: Identifier of the protein.
        number: Number of the sample, from 1.
        residues: Token ids without `<cls>` and `<eos>`, (residues,), uint8; `<mask>` where nothing is drawn yet.
        random: Draws random numbers from 0 to 1.
        log_probability: Sum of the log probabilities, in nats, that the drawn residues had when they were drawn.
        num_tokens: Number of tokens that were computed for it.
    """

    id: str
    number: int
    residues: Tokens
    random: Random
    log_probability: float = 0.0
    num_tokens: int = 0

    @classmethod
    def begin(cls, id: str, sequence: str, *, seed: int, number: int) -> "Draft":
        """Begin a sample of a sequence; the sequence, the seed and the number determine its random numbers."""
        digest = sequence_sha256(f"{sequence}/{seed}/{number}")
        return cls(id=id, number=number, residues=encode(sequence), random=frozen_random(digest))

    @property
    def sequence(self) -> str:
        """The filled-in sequence, when no position is masked any more."""
        return decode(self.residues)

    @property
    def is_complete(self) -> bool:
        """Whether no position is masked any more."""
        return not (self.residues == MASK).any()

    def fill_most_certain(self, query: PositionQuery, log_probs: LogProbabilities, temperature: float) -> None:
        """Draw a residue for the masked position whose most probable residue has the highest probability."""
        row = int(log_probs.max(axis=1).argmax())  # the first of equals
        column = _draw(log_probs[row], temperature, float(self.random(1)[0]))
        self.residues[query.positions[row]] = column + FIRST_AMINO_ACID
        self.log_probability += float(log_probs[row, column])


def _draw(log_probs: LogProbabilities, temperature: float, number: float) -> int:
    """Choose a column of log probabilities, (20,), by a random number from 0 to 1."""
    scaled = (log_probs.astype(np.float64) - log_probs.max()) / max(temperature, _MIN_TEMPERATURE)
    cumulative = np.exp(scaled).cumsum()
    return int(np.searchsorted(cumulative[:-1], number * cumulative[-1], side="right"))


@dataclass(frozen=True, kw_only=True)
class SequenceSampler:
    """Draws whole sequences, one masked position after the other, each given the residues that were drawn before.

    Source: Ghazvininejad et al. 2019, "Mask-Predict: parallel decoding of conditional masked language models", whose
    most certain positions are filled in first; here one position in each pass of the model.

    Attributes:
        precision: Precision of the model's matrix products, for messages.
    """

    marginals: Marginals
    temperature: float = 1.0
    precision: torch.dtype = torch.float32

    def complete(
        self, engine: Engine, drafts: Iterable[Draft], on_drawn: Callable[[int], None] = lambda num_tokens: None
    ) -> Iterator[Draft]:
        """Fill in drafts, and yield them in their order; `on_drawn` receives the tokens of each after every draw.

        Raises:
            NotFiniteError: A log probability is not a finite number.
        """
        return chain.from_iterable(self.complete_rounds(engine, drafts, on_drawn))

    def complete_rounds(
        self, engine: Engine, drafts: Iterable[Draft], on_drawn: Callable[[int], None] = lambda num_tokens: None
    ) -> Iterator[list[Draft]]:
        """Fill in drafts as `complete` does, and yield those that were filled in together."""
        # A crop computed beside others may differ in its last bit, and with it, rarely, a draw. Alone it never does.
        engine, waiting = replace(engine, micro_batch_tokens=1), iter(drafts)
        while group := list(islice(waiting, _DRAFTS_PER_ROUND)):
            while incomplete := [draft for draft in group if not draft.is_complete]:
                self._fill_each(engine, incomplete)
                for draft in incomplete:
                    num_tokens = len(draft.residues) + NUM_SPECIAL_TOKENS
                    draft.num_tokens += num_tokens
                    on_drawn(num_tokens)
            yield group

    def _fill_each(self, engine: Engine, drafts: Sequence[Draft]) -> None:
        """Fill in one position of each draft; equal drafts, as all samples are at first, are computed once."""
        names = {draft.residues.tobytes(): draft.id for draft in drafts}
        queries = [PositionQuery.masked(np.frombuffer(residues, np.uint8)) for residues in names]
        results = dict(zip(names, engine.run(self.marginals.unmasked(), queries), strict=True))
        for draft in drafts:
            query, log_probs = results[draft.residues.tobytes()]
            check_finite(draft.id, log_probs, "log probabilities", self.precision)
            draft.fill_most_certain(query, log_probs, self.temperature)
