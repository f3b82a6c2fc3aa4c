"""The table of scores: read the variants, compute, and write it."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreOptions, describe_formula
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device
from protembed.errors import NotFiniteError
from protembed.inference.engine import Engine, inference_engine
from protembed.inference.marginals import Marginals
from protembed.io.delimited import COMMENT
from protembed.io.tables import name_new_columns, separator_of
from protembed.io.writing import atomic_file
from protembed.model.catalog import ResolvedModel
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.scoring.scorer import MutatedPositions, VariantScorer
from protembed.scoring.variants import VariantTable, read_wild_types
from protembed.text import format_row

_NEW_COLUMNS = ("num_mutations", "score")


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
        self._columns, self._notes = name_new_columns(self._table.header, _NEW_COLUMNS, self._table.path)
        mutated.add(self._table.read(self._statistics))
        self.scorer = VariantScorer(
            marginals=marginals, method=options.scoring.method, mutated=mutated, on_crop=on_crop
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
        yield from self._notes
        if checkpoint.metadata.has_finetuned_encoder:
            yield "this model was fine-tuned without its masked-LM head; use the original model for scoring"


def write_scores(
    table: Path,
    model: ResolvedModel,
    paths: Sequence[Path],
    options: ScoreOptions,
    precision: str,
    callbacks: Callbacks,
) -> dict[str, Any]:
    """Score the variants of the first of the files, and write the table; return counts and warnings for its record.

    Raises:
        ProtembedError: A variant, the model or the device does not allow it.
    """
    device = choose_device(options.compute)
    checkpoint = load_checkpoint(model).to(device)
    checkpoint.encoder.set_compute_dtype(getattr(torch, precision))
    marginals = Marginals.from_checkpoint(checkpoint, options.scoring.window_residues)
    job = _Job(paths, options, marginals, callbacks.on_progress)
    callbacks.on_start(job.scorer.num_tokens())
    with (
        inference_engine(options.compute, device, checkpoint.encoder.shape) as engine,
        atomic_file(table) as stream,
    ):
        stream.writelines(job.lines(engine, precision, separator_of(table)))
    return {**job.counts(), "warnings": [*job.warnings(checkpoint)]}
