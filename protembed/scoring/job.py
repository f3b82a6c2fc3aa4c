"""The table of scores of variants: compute with each model, and write it."""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreMethod, describe_formula
from protembed.errors import NotFiniteError
from protembed.inference.engine import Engine, inference_engine
from protembed.inference.loading import load_for_inference
from protembed.inference.marginals import Marginals
from protembed.io.delimited import COMMENT
from protembed.io.tables import name_new_columns, separator_of
from protembed.io.writing import atomic_file
from protembed.scoring.baselines import Values
from protembed.scoring.measurements import MeasuredRow, MeasuredScores, sum_over_substitutions
from protembed.scoring.positions import CheckedVariants
from protembed.scoring.request import ScoringRequest
from protembed.scoring.scorer import VariantScorer
from protembed.scoring.variants import Variant
from protembed.text import format_row, pluralize

_NEW_COLUMNS = ("num_mutations", "score")
# Only of a table with insertions or deletions.
_PER_RESIDUE = "score_per_residue"


class _Scores(NamedTuple):
    """What one model says about a variant, in nats; NaN where a score has no meaning, such as per residue."""

    total: float
    per_residue: float
    position_independent: float


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """The variants of a table, and the models that score them.

    Attributes:
        requests: Models, in the order of their columns.
        precision: Precision of the matrix products.
    """

    requests: Sequence[ScoringRequest]
    variants: CheckedVariants
    precision: str
    callbacks: Callbacks

    @property
    def method(self) -> ScoreMethod:
        """How the variants are scored."""
        return self.requests[0].options.scoring.method

    @property
    def has_indels(self) -> bool:
        """Whether any variant has insertions or deletions."""
        return self.variants.mutated.num_with_indels > 0

    @property
    def names(self) -> list[str]:
        """Names of the new columns, before they are compared with those of the table."""
        models = name_models([request.model.name for request in self.requests])
        return [
            *_NEW_COLUMNS,
            *([_PER_RESIDUE] if self.has_indels else []),
            *([f"{_NEW_COLUMNS[1]}_{name}" for name in models] if len(models) > 1 else []),
        ]

    def formula(self) -> str:
        """Describe what the scores are."""
        return describe_formula(self.method, num_models=len(self.requests), has_indels=self.has_indels)


def name_models(names: Sequence[str]) -> list[str]:
    """Shorten the names of models for columns: without owners, and numbered where two are the same.

    >>> name_models(["facebook/esm1v_1", "esm1v_1", "mine"])
    ['esm1v_1', 'esm1v_1_2', 'mine']
    """
    short = list[str]()
    for name in names:
        base = name.rpartition("/")[2]
        number = sum(other.rpartition("/")[2] == base for other in names[: len(short)])
        short.append(f"{base}_{number + 1}" if number else base)
    return short


class _Table:
    """The table of scores, and what is recorded of it."""

    def __init__(self, job: ScoringJob) -> None:
        self._job, self._table, self._statistics = job, job.variants.table, job.variants.statistics
        table = self._table
        self._columns, self._notes = name_new_columns(table.header, job.names, table.path, table.line)
        names = [name for name, new in zip(self._columns[1:], job.names[1:], strict=True) if new != _PER_RESIDUE]
        self._measured = None
        if table.measurement is not None and job.variants.num_measured:
            self._measured = MeasuredScores(table.measurement, names, _PER_RESIDUE)

    def lines(self, scored: Iterable[tuple[Variant, Sequence[_Scores]]], separator: str) -> Iterator[bytes]:
        """Format the table: the formula, the names of the columns, a line per variant with the scores of each model."""
        yield f"{COMMENT}{self._columns[1]}: {self._job.formula()}\n".encode()
        yield format_row([*self._table.header, *self._columns], separator)
        for variant, scores in scored:
            totals, per_residue, independent = zip(*scores, strict=True)
            each = totals if len(scores) > 1 else ()
            new = [_mean(totals), *([_mean(per_residue)] if self._job.has_indels else []), *each]
            if self._measured is not None:
                row = MeasuredRow(
                    variant=variant,
                    measured=self._table.measured(variant),
                    scores=[_mean(totals), *each],
                    per_residue=_mean(per_residue),
                    position_independent=_mean(independent),
                )
                self._measured.add(row)
            number = "" if variant.num_mutations is None else variant.num_mutations
            yield format_row([*variant.cells, number, *map(_format, new)], separator)

    def counts(self) -> dict[str, Any]:
        """Describe what was scored, for the record of the table and the summary."""
        mutated = self._job.variants.mutated
        compared = [] if self._measured is None else self._measured.compare()
        return {
            "num_variants": self._statistics.num_records,
            "num_wild_types": len(mutated.positions),
            "num_positions": mutated.num_positions,
            "num_with_indels": mutated.num_with_indels,
            "num_refused": len(self._statistics.skipped),
            **self._statistics.left_out(),
            "score_column": self._columns[1],
            "formula": self._job.formula(),
            **({"comparisons": [comparison.as_record() for comparison in compared]} if compared else {}),
            **({"notes": self._table.notes} if self._table.notes else {}),
        }

    def warnings(self, checkpoint_warnings: Iterable[str]) -> Iterator[str]:
        """Yield what the user should know about the input and the models."""
        yield from self._statistics.warnings()
        yield from dict.fromkeys(checkpoint_warnings)
        for request in self._job.requests:
            yield from request.warnings()
        yield from self._notes
        yield from self._job.variants.warnings()
        if self._job.has_indels:
            yield from _about_indels(self._job.variants.mutated.num_with_indels, self._columns[1:], self._job.method)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _format(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.7g}"


def _about_indels(number: int, columns: Sequence[str], method: ScoreMethod) -> Iterator[str]:
    """Say what length does to the scores of insertions and deletions, and which other scores they compare with."""
    score, per_residue = columns[:2]
    yield (
        f"{pluralize(number, 'variant')} with insertions or deletions: every residue adds its log probability, which "
        f"is negative, to {score!r}, so that it favours deletions and disfavours insertions; {per_residue!r} does not, "
        "and compares variants of different lengths"
    )
    if method != "pseudo-perplexity":
        yield (
            f"the scores of these variants are not on one scale with {method} of substitutions: rank the two apart, or "
            "score all variants alike by the method pseudo-perplexity"
        )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A model that is loaded, and the variants that it scores."""

    job: ScoringJob
    scorer: VariantScorer
    engine: Engine
    warnings: Sequence[str]

    def scores(self) -> Iterator[tuple[Variant, _Scores]]:
        """Score the variants of the table; the means of substitutions are complete before the first is yielded."""
        means: Values | None = None
        for variant, score in self.scorer.scores(self.engine, self.job.variants.table):
            if not math.isfinite(score.total):
                raise NotFiniteError(variant.name, self.job.precision, "float32", what="score")
            means = self.scorer.means.matrix() if means is None else means
            independent = math.nan if variant.has_indels else sum_over_substitutions(means, variant.substitutions)
            yield variant, _Scores(score.total, score.per_residue, independent)

    def num_tokens(self) -> int:
        """Count the tokens that all models have to compute, each in its windows."""
        marginals = self.scorer.marginals
        return sum(
            replace(self.scorer, marginals=replace(marginals, window_residues=request.window_residues)).num_tokens()
            for request in self.job.requests
        )


@contextmanager
def _running(job: ScoringJob, request: ScoringRequest) -> Iterator[_Run]:
    """Load a model for as long as it computes; the first one announces the work of all."""
    compute, callbacks = request.options.compute, job.callbacks
    checkpoint = load_for_inference(request.model, compute, getattr(torch, job.precision), callbacks)
    scorer = VariantScorer(
        marginals=Marginals.from_checkpoint(checkpoint, request.window_residues),
        method=job.method,
        mutated=job.variants.mutated,
        on_crop=callbacks.on_progress,
    )
    shape, layers = checkpoint.encoder.shape, checkpoint.offloaded
    with inference_engine(compute, checkpoint.device, shape, layers=layers) as engine:
        run = _Run(job=job, scorer=scorer, engine=engine, warnings=[*checkpoint.warnings, *checkpoint.lm_head_warnings])
        if request is job.requests[0]:
            callbacks.on_start(run.num_tokens())
        yield run


def _merge(
    last: Iterable[tuple[Variant, _Scores]], held: Sequence["array[float]"]
) -> Iterator[tuple[Variant, list[_Scores]]]:
    """Yield each variant with the scores of all models, of which all but the last are held."""
    earlier = [map(_Scores._make, zip(*[iter(scores)] * len(_Scores._fields), strict=True)) for scores in held]
    for (variant, score), *others in zip(last, *earlier, strict=True):
        yield variant, [*others, score]


def write_scores(path: Path, job: ScoringJob) -> dict[str, Any]:
    """Score variants by each model in turn, and write the table; only the scores of earlier models are held.

    Returns:
        Counts, notes and warnings for the record of the table.

    Raises:
        ProtembedError: A variant, a model or the device does not allow it.
    """
    table, held, warnings = _Table(job), list["array[float]"](), list[str]()
    for request in job.requests[:-1]:
        with _running(job, request) as run:
            held.append(array("d", chain.from_iterable(scores for _, scores in run.scores())))
            warnings += run.warnings
    with _running(job, job.requests[-1]) as run, atomic_file(path) as stream:
        stream.writelines(table.lines(_merge(run.scores(), held), separator_of(path)))
        warnings += run.warnings
    return {**table.counts(), "warnings": [*table.warnings(warnings)]}
