"""The log probabilities of proteins: computed once for each sequence, in groups that are saved one after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch

from protembed.callbacks import Callbacks
from protembed.data.alphabet import NUM_SPECIAL_TOKENS
from protembed.data.fasta import ReadStatistics, Record
from protembed.inference.embedding import check_finite
from protembed.inference.engine import Engine, InferenceJob, chunk_by_tokens, inference_engine
from protembed.inference.loading import load_for_inference
from protembed.inference.marginals import LogProbabilities, Marginals, PositionQuery
from protembed.io.reading import check_inputs
from protembed.model.checkpoint import Checkpoint
from protembed.scoring.protein_input import ProteinInput
from protembed.scoring.request import ScoringRequest

# A group of proteins is some chunks of the engine long, because workers wait for each other at its end.
_CHUNKS_PER_GROUP = 4

MakeQuery = Callable[[str], PositionQuery]


class ResultStore(Protocol):
    """Where results of proteins are kept, in the order of the input.

    Attributes:
        num_committed: Proteins that are safe on disk, including those of an earlier process.
    """

    num_committed: int

    def add(self, record: Record, query: PositionQuery, log_probs: LogProbabilities) -> None:
        """Add the next protein, with its log probabilities, (positions, 20)."""

    def repeat(self, record: Record, row: int) -> None:
        """Add the next protein, whose sequence is that of an earlier row, from 0."""

    def commit(self) -> None:
        """Make everything added so far safe."""


@dataclass(frozen=True, kw_only=True)
class ProteinJob:
    """A model that computes the log probabilities of proteins."""

    request: ScoringRequest
    precision: str
    checkpoint: Checkpoint
    marginals: Marginals
    make_query: MakeQuery

    @classmethod
    def load(
        cls, request: ScoringRequest, precision: str, make_query: MakeQuery, callbacks: Callbacks | None = None
    ) -> "ProteinJob":
        """Load the model on the device, with matrix products of this precision.

        Args:
            request: The model and the options.
            precision: Name of the precision.
            make_query: Chooses the positions of a sequence that are computed.
            callbacks: Functions that receive notes about how the model is computed.

        Raises:
            ModelFormatError: The model has no masked-LM head, or is damaged.
            ConfigError: The device is not available.
        """
        checkpoint = load_for_inference(request.model, request.options.compute, getattr(torch, precision), callbacks)
        return cls(
            request=request,
            precision=precision,
            checkpoint=checkpoint,
            marginals=Marginals.from_checkpoint(checkpoint, request.window_residues),
            make_query=make_query,
        )

    @property
    def computation(self) -> InferenceJob[LogProbabilities]:
        """Computation that the engine runs on each batch."""
        return self.marginals.masked() if self._is_masked else self.marginals.unmasked()

    @property
    def _is_masked(self) -> bool:
        """Whether each position is masked alone; those that are to be filled in are all masked already."""
        options = self.request.options
        return options.scoring.method != "wildtype-marginals" and not options.filling.fill

    def engine(self) -> AbstractContextManager[Engine]:
        """Make the engine that computes, with its workers."""
        shape, layers = self.checkpoint.encoder.shape, self.checkpoint.offloaded
        return inference_engine(self.request.options.compute, self.checkpoint.device, shape, layers=layers)

    def run(self, proteins: ProteinInput, store: ResultStore, callbacks: Callbacks) -> ReadStatistics:
        """Compute what a store does not have yet, group by group.

        A group ends where the input alone decides, so that a resumed run computes the same batches, and gives the same
        numbers to the bit.

        Returns:
            Statistics of the input.

        Raises:
            ChangedInputError: The input changed while it was read.
            NotFiniteError: A log probability is not a finite number.
        """
        statistics = ReadStatistics()
        callbacks.on_start(sum(self._num_tokens(record) for record in self._missing(proteins, store, ReadStatistics())))
        with self.engine() as engine:
            limit = max(_CHUNKS_PER_GROUP * engine.tokens_per_chunk, engine.tokens_per_round if engine.layers else 0)
            for group in chunk_by_tokens(self._missing(proteins, store, statistics), self._num_tokens, limit):
                self._compute(engine, group, proteins, store, callbacks)
                check_inputs()  # before results become safe, because they are stored under the hash of the input
                store.commit()
                for record in group:
                    callbacks.on_progress(self._num_tokens(record))
        return statistics

    def _missing(self, proteins: ProteinInput, store: ResultStore, statistics: ReadStatistics) -> Iterator[Record]:
        return islice(proteins.read(statistics), store.num_committed, None)

    def _compute(
        self,
        engine: Engine,
        group: Sequence[Record],
        proteins: ProteinInput,
        store: ResultStore,
        callbacks: Callbacks,
    ) -> None:
        distinct = [record for record in group if not proteins.is_repeated(record.row)]
        queries = (self.make_query(record.sequence) for record in distinct)
        computed = engine.run(self.computation, queries, callbacks.on_computed)
        results = dict(zip([record.row for record in distinct], computed, strict=True))
        for record in group:
            if record.row not in results:
                store.repeat(record, int(proteins.first_rows[record.row]))
                continue
            query, log_probs = results[record.row]
            check_finite(record.id, log_probs, "log probabilities", getattr(torch, self.precision))
            store.add(record, query, log_probs)

    def _num_tokens(self, record: Record) -> int:
        """Count the tokens that are computed for a protein."""
        query, num_residues = self.make_query(record.sequence), len(record.sequence)
        if num_residues > self.marginals.window_residues:
            return self.computation.num_tokens(query)
        return (num_residues + NUM_SPECIAL_TOKENS) * (len(query.positions) if self._is_masked else 1)

    def facts(self, proteins: ProteinInput, statistics: ReadStatistics) -> dict[str, Any]:
        """Describe what was computed, for the record of the result and the summary."""
        lengths = (len(record.sequence) for record in proteins.read())
        return {
            "num_proteins": proteins.num_proteins,
            "num_residues": proteins.num_residues,
            "num_distinct": proteins.num_distinct,
            "num_windowed": sum(length > self.marginals.window_residues for length in lengths),
            "num_refused": len(statistics.skipped),
            **statistics.left_out(),
            "warnings": self.warnings(statistics),
        }

    def warnings(self, statistics: ReadStatistics) -> list[str]:
        """Describe what is doubtful about the input and the model."""
        return [*statistics.warnings(), *self.checkpoint.warnings, *self.checkpoint.lm_head_warnings]
