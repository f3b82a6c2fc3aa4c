"""Score a table of variants with a model, without training."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from protembed.callbacks import Callbacks
from protembed.config.score import FORMULAS, PROBABILITY, ScoreMethod, ScoreOptions
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device, choose_precision
from protembed.errors import NotFiniteError, TableError
from protembed.inference.engine import Engine, inference_engine
from protembed.inference.marginals import Marginals
from protembed.io.reading import (
    STANDARD_STREAM,
    PathLike,
    as_path,
    check_inputs,
    default_path,
    follow_link,
    unchanged_inputs,
)
from protembed.io.result import check_absent, check_not_an_input, check_table_suffix, result_lock
from protembed.io.tables import COMMENT
from protembed.io.writing import output_stream, seekable_inputs
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
        num_variants: Rows that were scored.
        num_positions: Mutated positions of all wild types.
        num_refused: Rows that were left out on request.
        score_column: Column of the scores: `score`, or `protembed_score` if the input has a column of that name.
        warnings: What the user should know about the input and the model, in sentences.
    """

    output: Path | None
    method: ScoreMethod
    formula: str
    num_variants: int
    num_wild_types: int
    num_positions: int
    num_refused: int
    score_column: str
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A table whose rows were all read once, and the model that scores them.

    Attributes:
        statistics: Counts of the table, and the unusual residues of the file of wild types.
        columns: Names of the new columns.
        precision: Precision of the matrix products.
    """

    table: VariantTable
    statistics: ReadStatistics
    columns: Sequence[str]
    checkpoint: Checkpoint
    precision: torch.dtype
    scorer: VariantScorer

    @classmethod
    def prepare(
        cls, paths: Sequence[Path], checkpoint: Checkpoint, options: ScoreOptions, on_crop: Callable[[int], None]
    ) -> "_Job":
        """Read the first of the files, with the wild types of the second if there is one."""
        scoring, statistics, mutated = options.scoring, ReadStatistics(), MutatedPositions()
        precision = choose_precision(scoring.precision, checkpoint.device)
        checkpoint.encoder.set_compute_dtype(precision)
        marginals = Marginals.from_checkpoint(checkpoint, scoring.window_residues)
        wild_types, on_illegal = None, options.reader.on_illegal
        if len(paths) > 1:
            wild_types = read_wild_types(paths[1], on_illegal=on_illegal, statistics=statistics)
        table = VariantTable(paths[0], options.table, wild_types, on_illegal)
        columns = _new_columns(table)
        mutated.add(table.read(statistics))
        return cls(
            table=table,
            statistics=statistics,
            columns=columns,
            checkpoint=checkpoint,
            precision=precision,
            scorer=VariantScorer(marginals=marginals, method=scoring.method, mutated=mutated, on_crop=on_crop),
        )

    @property
    def formula(self) -> str:
        """Formula of the score, in words."""
        return f"{self.scorer.method}, {FORMULAS[self.scorer.method]}; {PROBABILITY}"

    def lines(self, engine: Engine) -> Iterator[bytes]:
        """Score the variants, and format the table: the formula, the names of the columns, a line per variant."""
        yield f"{COMMENT}{self.columns[-1]}: {self.formula}\n".encode()
        yield format_row([*self.table.header, *self.columns])
        for variant, score in self.scorer.scores(engine, self.table.read()):
            if not math.isfinite(score):
                name = ":".join(map(str, variant.mutations))
                raise NotFiniteError(name, str(self.precision).removeprefix("torch."), "float32")
            yield format_row([*variant.cells, len(variant.mutations), f"{score:.7g}"])

    def summary(self, output: Path) -> ScoreSummary:
        """Describe what was scored."""
        mutated = self.scorer.mutated
        return ScoreSummary(
            output=None if output == STANDARD_STREAM else output,
            method=self.scorer.method,
            formula=self.formula,
            num_variants=self.statistics.num_records,
            num_wild_types=len(mutated.positions),
            num_positions=mutated.num_positions,
            num_refused=len(self.statistics.skipped),
            score_column=self.columns[-1],
            warnings=[*self.statistics.warnings(), *self.checkpoint.warnings, *self._warnings()],
        )

    def _warnings(self) -> Iterator[str]:
        for usual, name in zip(_NEW_COLUMNS, self.columns, strict=True):
            if name != usual:
                yield f"the table already has a column {usual!r}: the new one is {name!r}"
        if self.checkpoint.metadata.has_finetuned_encoder:
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
        OutputExistsError: The output exists, and `scoring.force` is not set.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks = options or ScoreOptions(), callbacks or Callbacks()
    inputs = [as_path("variants", variants), *filter(None, [options.table.wild_type])]
    named = options.scoring.output or default_path(inputs[0], ".scores.tsv")
    output = follow_link(named)
    check_absent(output, force=options.scoring.force)
    directory = locate_model(options.model.model).directory
    check_not_an_input(output, [*inputs, directory])
    check_table_suffix(named)
    device = choose_device(options.compute)
    checkpoint = load_checkpoint(directory).to(device)
    with (
        unchanged_inputs(),
        seekable_inputs(inputs) as paths,
        inference_engine(options.compute, device, checkpoint.encoder.shape) as engine,
    ):
        job = _Job.prepare(paths, checkpoint, options, callbacks.on_progress)
        callbacks.on_start(job.scorer.num_tokens())
        with result_lock(output), output_stream(output) as stream:
            stream.writelines(job.lines(engine))
            check_inputs()
    return job.summary(output)
