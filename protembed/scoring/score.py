"""Score a table of variants with a model, without training."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from protembed.callbacks import Callbacks
from protembed.config.score import FORMULAS, PROBABILITY, ScoreMethod, ScoreOptions, VariantTableConfig
from protembed.data.fasta import OnIllegal, ReadStatistics
from protembed.device import choose_device, choose_precision
from protembed.errors import NotFiniteError, TableError
from protembed.inference.engine import inference_engine
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
from protembed.scoring.variants import Variant, VariantTable, read_wild_types
from protembed.text import format_row

_NEW_COLUMNS = ("num_mutations", "score")


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        output: Table of scores; None for stdout.
        formula: Formula of the score, in words.
        num_variants: Number of rows that were scored.
        num_wild_types: Number of different wild types.
        num_positions: Number of mutated positions of all wild types.
        num_refused: Number of rows left out on request.
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


def _formula(method: ScoreMethod) -> str:
    return f"{method}, {FORMULAS[method]}; {PROBABILITY}"


def _open_table(
    paths: Sequence[Path], table: VariantTableConfig, on_illegal: OnIllegal, statistics: ReadStatistics
) -> VariantTable:
    """Open the table, and read the wild types from their file if there is one; its unusual residues are counted."""
    if len(paths) == 1:
        return VariantTable(paths[0], table, None, on_illegal)
    of_wild_types = ReadStatistics(nonstandard=statistics.nonstandard, skipped=statistics.skipped)
    wild_types = read_wild_types(paths[1], on_illegal=on_illegal, statistics=of_wild_types)
    statistics.num_masked += of_wild_types.num_masked
    return VariantTable(paths[0], table, wild_types, on_illegal)


def _new_columns(rows: VariantTable) -> list[str]:
    """Name the new columns, with a prefix if the input already has a column of that name."""
    columns = [f"protembed_{name}" if name in rows.header else name for name in _NEW_COLUMNS]
    for name in columns:
        if name in rows.header:
            raise TableError(rows.path, f"the table already has a column {name!r}", "rename or remove it", line=1)
    return columns


def _lines(
    scores: Iterable[tuple[Variant, float]],
    rows: VariantTable,
    columns: Sequence[str],
    method: ScoreMethod,
    precision: torch.dtype,
) -> Iterator[bytes]:
    """Format the table line by line: the formula, the names of the columns, the variants."""
    yield f"{COMMENT}{columns[-1]}: {_formula(method)}\n".encode()
    yield format_row([*rows.header, *columns])
    for variant, score in scores:
        if not math.isfinite(score):
            name = ":".join(map(str, variant.mutations))
            raise NotFiniteError(name, str(precision).removeprefix("torch."), "float32")
        yield format_row([*variant.cells, len(variant.mutations), f"{score:.7g}"])


def _warnings(checkpoint: Checkpoint, columns: Sequence[str]) -> list[str]:
    warnings = [
        f"the table already has a column {name.removeprefix('protembed_')!r}: the new one is {name!r}"
        for name in columns
        if name not in _NEW_COLUMNS
    ]
    if checkpoint.task_head is not None and checkpoint.metadata.configuration.get("method") != "frozen":
        warnings.append("this model was fine-tuned without its masked-LM head; use the original model for scoring")
    return warnings


def _summary(
    output: Path,
    method: ScoreMethod,
    statistics: ReadStatistics,
    mutated: MutatedPositions,
    columns: Sequence[str],
    checkpoint: Checkpoint,
) -> ScoreSummary:
    return ScoreSummary(
        output=None if output == STANDARD_STREAM else output,
        method=method,
        formula=_formula(method),
        num_variants=statistics.num_records,
        num_wild_types=len(mutated.positions),
        num_positions=mutated.num_positions,
        num_refused=len(statistics.skipped),
        score_column=columns[-1],
        warnings=[*statistics.warnings(), *checkpoint.warnings, *_warnings(checkpoint, columns)],
    )


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
    scoring, table, on_illegal = options.scoring, options.table, options.reader.on_illegal
    inputs = [as_path("variants", variants), *filter(None, [table.wild_type])]
    named = scoring.output or default_path(inputs[0], ".scores.tsv")
    output = follow_link(named)
    check_absent(output, force=scoring.force)
    directory = locate_model(options.model.model).directory
    check_not_an_input(output, [*inputs, directory])
    check_table_suffix(named)
    device = choose_device(options.compute)
    checkpoint, precision = load_checkpoint(directory).to(device), choose_precision(scoring.precision, device)
    checkpoint.encoder.set_compute_dtype(precision)
    marginals = Marginals.from_checkpoint(checkpoint, scoring.window_residues)
    statistics, mutated = ReadStatistics(), MutatedPositions()
    with (
        unchanged_inputs(),
        seekable_inputs(inputs) as paths,
        inference_engine(options.compute, device, checkpoint.encoder.shape) as engine,
    ):
        rows = _open_table(paths, table, on_illegal, statistics)
        columns = _new_columns(rows)
        mutated.add(rows.read(statistics))
        scorer = VariantScorer(
            marginals=marginals, method=scoring.method, mutated=mutated, on_crop=callbacks.on_progress
        )
        callbacks.on_start(scorer.num_tokens())
        with result_lock(output), output_stream(output) as stream:
            stream.writelines(_lines(scorer.scores(engine, rows.read()), rows, columns, scoring.method, precision))
            check_inputs()
    return _summary(output, scoring.method, statistics, mutated, columns, checkpoint)
