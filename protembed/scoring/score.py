"""Scoring: from a table of variants and a model to a table of zero-shot scores."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from protembed.config.common import DeviceConfig, InputConfig, ModelConfig
from protembed.config.score import FORMULAS, PROBABILITY, ScoreConfig, ScoreMethod, VariantTableConfig
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
from protembed.io.text import format_row
from protembed.io.writing import output_stream, seekable_inputs
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.scoring.scorer import MutatedPositions, VariantScorer
from protembed.scoring.variants import Variant, VariantTable, read_wild_types

_NEW_COLUMNS = ("num_mutations", "score")


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        output: the table; None for stdout.
        method: which score.
        formula: what it is.
        num_variants: rows.
        num_wild_types: proteins that they are variants of.
        num_positions: mutated positions of these.
        num_refused: rows left out on request.
        score_column: of the table; another name than `score` where the input has a column of that name.
        warnings: what the user should know about the input and the model.
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


def score_variants(
    variants: PathLike,
    model: ModelConfig,
    table: VariantTableConfig,
    scoring: ScoreConfig,
    *,
    reader: InputConfig | None = None,
    compute: DeviceConfig | None = None,
    on_start: Callable[[int], None] = lambda num_tokens: None,
    on_crop: Callable[[int], None] = lambda num_tokens: None,
) -> ScoreSummary:
    """Score variants by a model that has learned from none; the rows stay in their order, with all their columns.

    The table begins with a line that tells the formula, after `# `: pandas reads it with `comment="#"`. Behind the
    input's columns stand `num_mutations` and `score`; where the input has such a column, ours is `protembed_score`.

    Args:
        variants: CSV or TSV; `-` is stdin.
        model: which model.
        table: the wild types, and the columns by name.
        scoring: where to, and which score.
        reader: how to read; the defaults if None.
        compute: where to compute; the defaults if None.
        on_start: told how many tokens there are to compute.
        on_crop: told the tokens of each pass of the model over a protein or a window that is finished.

    Raises:
        ChangedInputError: a file changed while it was read.
        OutputExistsError: the table stands there already.
        ProtembedError: the input, the model or the output does not allow it; see `protembed.errors`.
    """
    reader, compute = reader or InputConfig(), compute or DeviceConfig()
    inputs = [as_path("variants", variants), *filter(None, [table.wild_type])]
    named = scoring.output or default_path(inputs[0], ".scores.tsv")
    output = follow_link(named)
    check_absent(output, force=scoring.force)
    directory = find_model(model.model)
    check_not_an_input(output, [*inputs, directory])
    check_table_suffix(named)
    device = choose_device(compute)
    checkpoint, precision = load_checkpoint(directory).to(device), choose_precision(scoring.precision, device)
    checkpoint.encoder.set_compute_dtype(precision)
    marginals = Marginals.from_checkpoint(checkpoint, window_residues=scoring.window_residues, on_crop=on_crop)
    statistics, mutated = ReadStatistics(), MutatedPositions()
    with (
        unchanged_inputs(),
        seekable_inputs(inputs) as paths,
        inference_engine(compute, device, checkpoint.encoder.shape) as engine,
    ):
        rows = _open_table(paths, table, reader.on_illegal, statistics)
        columns = _new_columns(rows)
        mutated.count(rows.read(statistics))
        scorer = VariantScorer(marginals=marginals, method=scoring.method, mutated=mutated)
        on_start(scorer.num_tokens())
        with result_lock(output), output_stream(output) as stream:
            stream.writelines(_lines(scorer.scores(engine, rows.read()), rows, columns, scoring.method, precision))
            check_inputs()
    return _summary(output, scoring.method, statistics, mutated, columns, checkpoint)


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


def _open_table(
    paths: Sequence[Path], table: VariantTableConfig, on_illegal: OnIllegal, statistics: ReadStatistics
) -> VariantTable:
    """Open the table, and read the wild types if they are given apart; what is odd in these is counted."""
    if len(paths) == 1:
        return VariantTable(paths[0], table, None, on_illegal)
    of_wild_types = ReadStatistics(nonstandard=statistics.nonstandard, skipped=statistics.skipped)
    wild_types = read_wild_types(paths[1], on_illegal=on_illegal, statistics=of_wild_types)
    statistics.num_masked += of_wild_types.num_masked
    return VariantTable(paths[0], table, wild_types, on_illegal)


def _new_columns(rows: VariantTable) -> list[str]:
    """Name our columns; a name that the input has already is told apart."""
    columns = [f"protembed_{name}" if name in rows.header else name for name in _NEW_COLUMNS]
    for name in columns:
        if name in rows.header:
            raise TableError(rows.path, f"there is a column {name!r} already", "rename or remove it", line=1)
    return columns


def _lines(
    scores: Iterable[tuple[Variant, float]],
    rows: VariantTable,
    columns: Sequence[str],
    method: ScoreMethod,
    precision: torch.dtype,
) -> Iterator[bytes]:
    """Spell the table, line by line: the formula, the names of the columns, the variants."""
    yield f"{COMMENT}{columns[-1]}: {_formula(method)}\n".encode()
    yield format_row([*rows.header, *columns])
    for variant, score in scores:
        if not math.isfinite(score):
            name = ":".join(map(str, variant.mutations))
            raise NotFiniteError(name, str(precision).removeprefix("torch."), "float32")
        yield format_row([*variant.cells, len(variant.mutations), f"{score:.7g}"])


def _formula(method: ScoreMethod) -> str:
    return f"{method}, {FORMULAS[method]}; {PROBABILITY}"


def _warnings(checkpoint: Checkpoint, columns: Sequence[str]) -> list[str]:
    found = [
        f"the table has a column {name.removeprefix('protembed_')!r} already: ours is {name!r}"
        for name in columns
        if name not in _NEW_COLUMNS
    ]
    if checkpoint.task_head is not None and checkpoint.metadata.configuration.get("method") != "frozen":
        found.append("this model was fine-tuned, and its masked-LM head was not trained along: score with the original")
    return found
