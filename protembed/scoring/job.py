"""The table of scores: read the variants, compute, and write it."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreMethod, ScoreOptions, describe_formula
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
from protembed.text import format_row, pluralize

_NEW_COLUMNS = ("num_mutations", "score")
# Only of a table with insertions or deletions.
_PER_RESIDUE = "score_per_residue"


class _Job:
    """The variants of a table, and their scorer."""

    def __init__(
        self, variants: CheckedVariants, options: ScoreOptions, marginals: Marginals, on_crop: Callable[[int], None]
    ) -> None:
        table = variants.table
        self._table, self._statistics = table, variants.statistics
        self._has_indels = variants.mutated.num_with_indels > 0
        names = [*_NEW_COLUMNS, *([_PER_RESIDUE] if self._has_indels else [])]
        self._columns, self._notes = name_new_columns(table.header, names, table.path, table.line)
        self.scorer = VariantScorer(
            marginals=marginals, method=options.scoring.method, mutated=variants.mutated, on_crop=on_crop
        )

    def lines(self, engine: Engine, precision: str, separator: str) -> Iterator[bytes]:
        """Score the variants, and format the table: the formula, the names of the columns, a line per variant."""
        formula = describe_formula(self.scorer.method, has_indels=self._has_indels)
        yield f"{COMMENT}{self._columns[1]}: {formula}\n".encode()
        yield format_row([*self._table.header, *self._columns], separator)
        for variant, score in self.scorer.scores(engine, self._table):
            if not math.isfinite(score.total):
                raise NotFiniteError(variant.name, precision, "float32", what="score")
            new = [variant.num_mutations, score.total, score.per_residue][: len(self._columns)]
            yield format_row([*variant.cells, *map(_format, new)], separator)

    def counts(self) -> dict[str, Any]:
        """Describe what was scored, for the record of the table and the summary."""
        return {
            "num_variants": self._statistics.num_records,
            "num_wild_types": len(self.scorer.mutated.positions),
            "num_positions": self.scorer.mutated.num_positions,
            "num_with_indels": self.scorer.mutated.num_with_indels,
            "num_refused": len(self._statistics.skipped),
            **self._statistics.left_out(),
            "score_column": self._columns[1],
            **({"notes": self._table.notes} if self._table.notes else {}),
        }

    def warnings(self, checkpoint: Checkpoint) -> Iterator[str]:
        """Yield what the user should know about the input and the model."""
        yield from self._statistics.warnings()
        yield from checkpoint.warnings
        yield from self._notes
        if self._has_indels:
            yield from _about_indels(self.scorer.mutated.num_with_indels, self._columns[1:], self.scorer.method)
        if checkpoint.metadata.has_finetuned_encoder:
            yield "this model was fine-tuned without its masked-LM head; use the original model for scoring"


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _about_indels(number: int, columns: Sequence[str], method: ScoreMethod) -> Iterator[str]:
    """Say what length does to the scores of insertions and deletions, and which other scores they compare with."""
    score, per_residue = columns
    yield (
        f"{pluralize(number, 'variant')} with insertions or deletions: every residue adds its log probability, which "
        f"is negative, to {score!r}, so that it favours deletions and disfavours insertions; {per_residue!r} does not, "
        "and compares variants of different lengths"
    )
    if method != "pseudo-perplexity":
        yield (
            f"the scores of these variants are not on one scale with {method} of substitutions: rank the two apart, or "
            "pass `method` pseudo-perplexity to score all variants alike"
        )


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
