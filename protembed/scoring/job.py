"""The table of scores: read the variants, compute, and write it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreOptions, describe_formula
from protembed.errors import NotFiniteError
from protembed.inference.engine import Engine, inference_engine
from protembed.inference.loading import load_for_inference
from protembed.inference.marginals import Marginals
from protembed.io.delimited import COMMENT
from protembed.io.tables import name_new_columns, separator_of
from protembed.io.writing import atomic_file
from protembed.model.catalog import ResolvedModel
from protembed.model.checkpoint import Checkpoint
from protembed.scoring.positions import CheckedVariants
from protembed.scoring.scorer import VariantScorer
from protembed.text import format_row

_NEW_COLUMNS = ("num_mutations", "score")


class _Job:
    """The variants of a table, and their scorer."""

    def __init__(
        self, variants: CheckedVariants, options: ScoreOptions, marginals: Marginals, on_crop: Callable[[int], None]
    ) -> None:
        table = variants.table
        self._table, self._statistics = table, variants.statistics
        self._columns, self._notes = name_new_columns(table.header, _NEW_COLUMNS, table.path, table.line)
        self.scorer = VariantScorer(
            marginals=marginals, method=options.scoring.method, mutated=variants.mutated, on_crop=on_crop
        )

    def lines(self, engine: Engine, precision: str, separator: str) -> Iterator[bytes]:
        """Score the variants, and format the table: the formula, the names of the columns, a line per variant."""
        yield f"{COMMENT}{self._columns[-1]}: {describe_formula(self.scorer.method)}\n".encode()
        yield format_row([*self._table.header, *self._columns], separator)
        for variant, score in self.scorer.scores(engine, self._table.read()):
            if not math.isfinite(score):
                name = ":".join(map(str, variant.mutations))
                raise NotFiniteError(name, precision, "float32", what="score")
            yield format_row([*variant.cells, len(variant.mutations), f"{score:.7g}"], separator)

    def counts(self) -> dict[str, Any]:
        """Describe what was scored, for the record of the table and the summary."""
        return {
            "num_variants": self._statistics.num_records,
            "num_wild_types": len(self.scorer.mutated.positions),
            "num_positions": self.scorer.mutated.num_positions,
            "num_refused": len(self._statistics.skipped),
            **self._statistics.left_out(),
            "score_column": self._columns[-1],
            **({"notes": self._table.notes} if self._table.notes else {}),
        }

    def warnings(self, checkpoint: Checkpoint) -> Iterator[str]:
        """Yield what the user should know about the input and the model."""
        yield from self._statistics.warnings()
        yield from checkpoint.warnings
        yield from self._notes
        if checkpoint.metadata.has_finetuned_encoder:
            yield "this model was fine-tuned without its masked-LM head; use the original model for scoring"


def write_scores(
    table: Path,
    model: ResolvedModel,
    variants: CheckedVariants,
    options: ScoreOptions,
    precision: str,
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Score variants, and write the table; return counts, notes and warnings for its record.

    Raises:
        ProtembedError: A variant, the model or the device does not allow it.
    """
    checkpoint = load_for_inference(model, options.compute, getattr(torch, precision), callbacks)
    shape, layers = checkpoint.encoder.shape, checkpoint.offloaded
    marginals = Marginals.from_checkpoint(checkpoint, options.scoring.window_residues)
    job = _Job(variants, options, marginals, callbacks.on_computed)
    callbacks.on_start(job.scorer.num_tokens())
    with (
        inference_engine(options.compute, checkpoint.device, shape, layers=layers) as engine,
        atomic_file(table) as stream,
    ):
        stream.writelines(job.lines(engine, precision, separator_of(table)))
    return {**job.counts(), "warnings": [*job.warnings(checkpoint)]}
