"""Verification: whether an earlier result of `embed` is complete and matches its input and model.

Imports torch only to compute a sample again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from protembed.callbacks import Callbacks
from protembed.config.embed import CheckOptions
from protembed.data.fasta import ReadStatistics, Record
from protembed.data.windows import window_spans
from protembed.embedding.metadata import ids_line, read_ids_lines
from protembed.embedding.parts import check_same_settings, in_order
from protembed.embedding.stored_result import StoredResult, is_result
from protembed.errors import ConfigError, VerificationError
from protembed.io.reading import Paths, as_paths, check_inputs, unchanged_inputs
from protembed.io.writing import seekable_inputs
from protembed.text import format_row


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """What was verified.

    Attributes:
        results: Paths of the result, or of its shards.
        num_refused: Records that were left out on request.
        num_recomputed: Proteins whose vectors were computed again.
        worst_difference: Largest difference of a recomputed vector, as a fraction of its largest number; None if no
            vector was recomputed.
    """

    results: Sequence[Path]
    num_proteins: int
    num_residues: int
    num_refused: int
    num_recomputed: int
    worst_difference: float | None


def _results_in_order(paths: Sequence[Path]) -> list[StoredResult]:
    """Read and verify one result or shard, all shards of a run, or results of several inputs."""
    results = [StoredResult.read(path) for path in paths]
    if len(results) > 1:
        results = in_order(results)
        check_same_settings(results)
    for result in results:
        result.verify()
    return results


def _compare_with_input(
    shards: Sequence[StoredResult], records: Iterator[Record], sampled: set[int]
) -> list[tuple[StoredResult, int, Record]]:
    """Compare each line of the table of identifiers with the input; return the sampled rows with their records."""
    lines = (
        (shard, row, line)
        for shard in shards
        for row, line in enumerate(read_ids_lines(shard.path), start=shard.first_row)
    )
    sample, num_residues = [], 0
    for index, (entry, record) in enumerate(zip_longest(lines, records)):
        if entry is None:
            found = f"it ends before {record.id!r}, line {record.line} of {record.path}"
            raise VerificationError(shards[-1].path, found)
        shard, row, line = entry
        if record is None:
            raise VerificationError(shard.path, f"row {row} and those after it are not in the input")
        num_windows = len(window_spans(len(record.sequence), shard.meta["window_residues"]))
        expected = format_row(ids_line(row, record, num_windows, None)).decode().removesuffix("\n").split("\t")
        stored = line.split("\t")
        stored[4:5] = [""]  # the agreement of the windows is not known without computing them
        if stored != expected:
            found = f"row {row}, {stored[1]!r}, has a different sequence or description than {record.id!r}"
            raise VerificationError(shard.path, f"{found}, line {record.line} of {record.path}")
        num_residues += len(record.sequence)
        if index in sampled:
            sample.append((shard, row - shard.first_row, record))
    if num_residues != sum(shard.meta["num_residues"] for shard in shards):
        raise VerificationError(
            shards[0].path, f"its rows have {num_residues:,} residues, which does not match its meta file"
        )
    return sample


def check_embeddings(
    files: Paths, options: CheckOptions | None = None, callbacks: Callbacks | None = None
) -> CheckSummary:
    """Verify a result of `embed`, or all its shards: rows, identifiers, hashes, and a sample computed again.

    Args:
        files: Paths of the result, of all its shards, or of results of several inputs in the order of their inputs,
            followed by the FASTA files in their order; `-` is stdin.
        options: All options of the command; the defaults if None. The default model is the one that the result names,
            if it is available.
        callbacks: Functions that receive the residues of each recomputed protein.

    Raises:
        VerificationError: The result is incomplete, or does not match its input or model.
        ProtembedError: A file or the model cannot be read.
    """
    options, callbacks, paths = options or CheckOptions(), callbacks or Callbacks(), as_paths("files", files)
    results = [path for path in paths if is_result(path)]
    fasta = [path for path in paths if path not in results]
    if not results or not fasta:
        expected = "a result (.npy, .npz, .h5, or a .tsv with its meta file) is expected, and then its FASTA"
        raise ConfigError("files", " ".join(map(str, paths)), expected)
    shards = _results_in_order(results)
    selection = shards[0].selection if len(shards) == 1 else replace(shards[0].selection, shard=None)
    num_proteins = sum(shard.num_proteins for shard in shards)
    rng = np.random.default_rng(options.check.seed)
    rows = np.sort(rng.choice(num_proteins, min(options.check.sample_size, num_proteins), replace=False))
    with unchanged_inputs(), seekable_inputs(fasta) as inputs:
        statistics = ReadStatistics()
        sample = _compare_with_input(shards, selection.read(inputs, statistics), set(rows.tolist()))
        check_inputs()
    num_refused = sum(shard.meta["num_refused"] for shard in shards)
    if len(statistics.skipped) != num_refused:
        found = f"{num_refused} records were left out, but {len(statistics.skipped)} records of its input should be"
        raise VerificationError(results[0], found)
    worst = None
    if sample:
        from protembed.embedding.recompute import recompute  # which imports torch

        worst = recompute(shards, sample, options, callbacks)
    return CheckSummary(
        results=results,
        num_proteins=num_proteins,
        num_residues=sum(shard.meta["num_residues"] for shard in shards),
        num_refused=num_refused,
        num_recomputed=0 if worst is None else len(sample),
        worst_difference=worst,
    )
