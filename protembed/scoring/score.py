"""Score a table of variants with a model, without training."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.score import FORMULAS, PROBABILITY, ScoreMethod, ScoreOptions
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device, choose_precision
from protembed.errors import NotFiniteError, TableError
from protembed.inference.engine import Engine, inference_engine
from protembed.inference.marginals import Marginals
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import PathLike, as_path, check_inputs, default_path, unchanged_inputs
from protembed.io.result import Result
from protembed.io.tables import COMMENT
from protembed.io.writing import atomic_file, seekable_inputs
from protembed.model.catalog import locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.scoring.scorer import MutatedPositions, VariantScorer
from protembed.scoring.variants import VariantTable, read_wild_types
from protembed.text import format_row

_NEW_COLUMNS = ("num_mutations", "score")


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        output: Table of scores; None for stdout.
        num_positions: Mutated positions of all wild types.
        num_refused: Rows that were left out on request.
        score_column: Column of the scores: `score`, or `protembed_score` if the input has a column of that name.
        warnings: What the user should know about the input and the model, in sentences.
        was_done: Whether the same command had finished before.
    """

    output: Path | None
    method: ScoreMethod
    formula: str
    num_variants: int
    num_wild_types: int
    num_positions: int
    num_refused: int
    score_column: str
    warnings: Sequence[str] = ()
    was_done: bool = False


def _formula(method: ScoreMethod) -> str:
    return f"{method}, {FORMULAS[method]}; {PROBABILITY}"


class _Job:
    """A table whose rows were all read once, and the scorer of its variants.

    Its statistics count the rows of the table, and the unusual residues of the file of wild types.
    """

    def __init__(
        self, paths: Sequence[Path], options: ScoreOptions, marginals: Marginals, on_crop: Callable[[int], None]
    ) -> None:
        """Read the first of the files, with the wild types of the second if there is one."""
        self._statistics, mutated, on_illegal = ReadStatistics(), MutatedPositions(), options.reader.on_illegal
        wild_types = None
        if len(paths) > 1:
            wild_types = read_wild_types(paths[1], on_illegal=on_illegal, statistics=self._statistics)
        self._table = VariantTable(paths[0], options.table, wild_types, on_illegal)
        self._columns = _new_columns(self._table)
        mutated.add(self._table.read(self._statistics))
        self.scorer = VariantScorer(
            marginals=marginals, method=options.scoring.method, mutated=mutated, on_crop=on_crop
        )

    def lines(self, engine: Engine, precision: str) -> Iterator[bytes]:
        """Score the variants, and format the table: the formula, the names of the columns, a line per variant."""
        yield f"{COMMENT}{self._columns[-1]}: {_formula(self.scorer.method)}\n".encode()
        yield format_row([*self._table.header, *self._columns])
        for variant, score in self.scorer.scores(engine, self._table.read()):
            if not math.isfinite(score):
                name = ":".join(map(str, variant.mutations))
                raise NotFiniteError(name, precision, "float32", what="score")
            yield format_row([*variant.cells, len(variant.mutations), f"{score:.7g}"])

    def counts(self) -> dict[str, Any]:
        """Count what was scored, for the record of the table and the summary."""
        return {
            "num_variants": self._statistics.num_records,
            "num_wild_types": len(self.scorer.mutated.positions),
            "num_positions": self.scorer.mutated.num_positions,
            "num_refused": len(self._statistics.skipped),
            "score_column": self._columns[-1],
        }

    def warnings(self, checkpoint: Checkpoint) -> Iterator[str]:
        """Yield what the user should know about the input and the model."""
        yield from self._statistics.warnings()
        yield from checkpoint.warnings
        for usual, name in zip(_NEW_COLUMNS, self._columns, strict=True):
            if name != usual:
                yield f"the table already has a column {usual!r}: the new one is {name!r}"
        if checkpoint.metadata.has_finetuned_encoder:
            yield "this model was fine-tuned without its masked-LM head; use the original model for scoring"


def _new_columns(table: VariantTable) -> list[str]:
    """Name the new columns, with a prefix if the input already has a column of that name."""
    columns = [f"protembed_{name}" if name in table.header else name for name in _NEW_COLUMNS]
    for name in columns:
        if name in table.header:
            raise TableError(table.path, f"the table already has a column {name!r}", "rename or remove it", line=1)
    return columns


def score_variants(
    variants: PathLike, options: ScoreOptions | None = None, callbacks: Callbacks | None = None
) -> ScoreSummary:
    """Score variants zero-shot, with a model that was trained on none; rows keep their order and all their columns.

    The first line of the table is a comment with the formula, after `# `: pandas reads it with `comment="#"`. The
    columns `num_mutations` and `score` follow those of the input; if the input has a column of that name, the new one
    is `protembed_num_mutations` or `protembed_score`.

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
    model, device = locate_model(options.model.model), choose_device(options.compute)
    output = options.scoring.output or default_path(inputs[0], ".scores.tsv")
    result = Result.table(output, [*inputs, model.directory], force=options.scoring.force)
    checkpoint, dtype = load_checkpoint(model).to(device), choose_precision(options.scoring.precision, device)
    checkpoint.encoder.set_compute_dtype(dtype)
    marginals = Marginals.from_checkpoint(checkpoint, options.scoring.window_residues)
    precision = str(dtype).removeprefix("torch.")
    with unchanged_inputs(), seekable_inputs(inputs) as paths:
        settings = as_plain_values(options.table, options.scoring, options.reader)
        settings |= {"window_residues": marginals.window_residues, "precision": precision}
        fingerprint = make_fingerprint(settings, model, paths if result.output else None)
        with result.claim(fingerprint) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            job = _Job(paths, options, marginals, callbacks.on_progress)
            callbacks.on_start(job.scorer.num_tokens())
            with (
                inference_engine(options.compute, device, checkpoint.encoder.shape) as engine,
                atomic_file(claim.path) as stream,
            ):
                stream.writelines(job.lines(engine, precision))
            check_inputs()
            facts = {**job.counts(), "warnings": [*job.warnings(checkpoint)]}
            return _summary(result.output, claim.publish({**fingerprint, **facts}))


def _summary(output: Path | None, recorded: Mapping[str, Any], *, was_done: bool = False) -> ScoreSummary:
    facts = {spec.name: recorded[spec.name] for spec in fields(ScoreSummary) if spec.name in recorded}
    return ScoreSummary(output=output, formula=_formula(recorded["method"]), was_done=was_done, **facts)
