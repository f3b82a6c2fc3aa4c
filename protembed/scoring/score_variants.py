"""Score a table of variants with a model or several, without training. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.score import ScoreMethod, ScoreOptions, describe_formula
from protembed.io.reading import PathLike, as_path, check_inputs, default_path, unchanged_inputs
from protembed.io.result import Result, recorded_values
from protembed.io.writing import seekable_inputs
from protembed.scoring.baselines import MeasuredComparison
from protembed.scoring.positions import CheckedVariants
from protembed.scoring.request import ScoringRequest, describe_models


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        output: Table of scores; None for stdout.
        num_positions: Positions of all wild types at which variants without insertions and deletions are mutated.
        num_with_indels: Variants with insertions or deletions.
        models: Names of several models, of which each has a column; empty for one.
        comparisons: How well the scores, BLOSUM62 and others rank measured variants; empty without measurements.
        num_refused: Rows that were left out on request.
        score_column: Column of the scores: `score`, or `protembed_score` if the input has a column of that name.
        notes: How the table was read, in sentences.
        warnings: What the user should know about the input and the model, in sentences.
        was_done: Whether the same command had finished before.
    """

    kind: Literal["variants"] = "variants"
    output: Path | None
    method: ScoreMethod
    formula: str
    num_variants: int
    num_wild_types: int
    num_positions: int
    num_refused: int
    score_column: str
    num_with_indels: int = 0
    models: Sequence[str] = ()
    comparisons: Sequence[MeasuredComparison] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    was_done: bool = False


def score_variants(
    variants: PathLike, options: ScoreOptions | None = None, callbacks: Callbacks | None = None
) -> ScoreSummary:
    """Score variants zero-shot, with a model that was trained on none; rows keep their order and all their columns.

    The first line of the table is a comment with the formula, after `# `: pandas reads it with `comment="#"`. The
    columns `num_mutations` and `score` follow those of the input; if the input has a column of that name, the new one
    is `protembed_num_mutations` or `protembed_score`. Insertions and deletions add `score_per_residue`, and several
    models, whose mean the score is, a column each.

    Args:
        variants: CSV or TSV file of variants; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the tokens to compute, and those of each protein or window that the model has
            computed.

    Raises:
        ChangedInputError: A file changed while it was read.
        OutputExistsError: The output exists, and another command made it.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks = options or ScoreOptions(), callbacks or Callbacks()
    inputs = [as_path("variants", variants), *filter(None, [options.table.wild_type])]
    requests = ScoringRequest.make_each(options)
    output = options.scoring.output or default_path(inputs[0], ".scores.tsv")
    directories = [request.model.directory for request in requests]
    result = Result.table(output, [*inputs, *directories], force=options.scoring.force)
    with unchanged_inputs(), seekable_inputs(inputs) as paths:
        settings = as_plain_values(options.table) | describe_models(requests)
        fingerprint = requests[0].fingerprint(result, paths, settings)
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            checked = CheckedVariants.read(paths, options)
            from protembed.scoring.job import ScoringJob, write_scores  # which import torch

            precision = fingerprint["precision"]
            job = ScoringJob(requests=requests, variants=checked, precision=precision, callbacks=callbacks)
            facts = write_scores(claim.path, job)
            check_inputs()
            return _summary(result.output, claim.publish({**fingerprint, **facts}))


def _summary(output: Path | None, recorded: Mapping[str, Any], *, was_done: bool = False) -> ScoreSummary:
    facts = recorded_values(ScoreSummary, recorded)
    facts["comparisons"] = [MeasuredComparison.from_record(values) for values in facts.get("comparisons", ())]
    formula = recorded.get("formula") or describe_formula(recorded["method"])  # which older records lack
    return ScoreSummary(**{**facts, "output": output, "formula": formula, "was_done": was_done})
