"""Embedding: from FASTA and a model to one vector per protein, or one per residue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.common import DeviceConfig
from protembed.config.embed import EmbedOptions
from protembed.data.fasta import ReadStatistics
from protembed.embedding.job import EmbeddingJob
from protembed.embedding.metadata import COUNTS
from protembed.embedding.writer import ArrayWriter, LineWriter, embedding_writer
from protembed.errors import ConfigError
from protembed.inference.engine import inference_engine
from protembed.io.reading import Paths, as_paths, check_inputs, unchanged_inputs
from protembed.io.writing import seekable_inputs


@dataclass(frozen=True, kw_only=True)
class EmbedSummary:
    """What was embedded.

    Attributes:
        output: Path of the result; None for stdout.
        num_windowed: Proteins that were computed in several windows.
        num_refused: Records that were left out on request.
        num_resumed: Proteins that an earlier process had computed.
        was_done: Whether the result was already complete.
        region: Residues of each protein that were used, as in `1-70`; None for the whole protein.
        warnings: Messages about the model and the input.
    """

    output: Path | None
    num_proteins: int
    num_residues: int
    num_windowed: int
    window_residues: int
    num_refused: int
    num_resumed: int = 0
    dim: int
    was_done: bool = False
    region: str | None
    warnings: Sequence[str] = ()


def _summary(job: EmbeddingJob, meta: Mapping[str, Any]) -> EmbedSummary:
    return EmbedSummary(
        output=job.result.output,
        **{name: meta[name] for name in COUNTS},
        window_residues=job.selection.window_residues,
        dim=job.dim,
        region=job.region,
    )


def _compute(
    job: EmbeddingJob,
    paths: Sequence[Path],
    writer: ArrayWriter | LineWriter,
    compute: DeviceConfig,
    callbacks: Callbacks,
) -> EmbedSummary:
    """Compute and write the vectors that are missing, and publish the result."""
    statistics, comparison, num_resumed = ReadStatistics(), job.compare_input(), writer.num_committed
    if job.result.output is not None:
        # Reading all records first takes a thousandth of the time, and finds an error in the last one at once.
        remaining = islice(job.selection.read(paths, ReadStatistics()), num_resumed, None)
        callbacks.on_start(sum(len(record.sequence) for record in remaining))
    records = islice(comparison.observe(job.selection.read(paths, statistics)), num_resumed, None)
    shape = job.checkpoint.encoder.shape
    with inference_engine(compute, job.checkpoint.device, shape, job.numbers_per_token) as engine:
        for chunk in engine.run_committed(job.computation, records):
            for record, embedding in chunk:
                writer.add(record, embedding)
            check_inputs()  # before rows become safe, because they are stored under the hash of the input
            writer.commit()
            for record, _ in chunk:
                callbacks.on_progress(len(record.sequence))
    check_inputs()
    summary = _summary(job, writer.publish(statistics.skipped))
    return replace(summary, num_resumed=num_resumed, warnings=job.warnings(statistics, comparison))


def embed_fasta(fasta: Paths, options: EmbedOptions | None = None, callbacks: Callbacks | None = None) -> EmbedSummary:
    """Compute a vector for each protein, in the order of the input; the same call resumes an interrupted run.

    With a fine-tuned model the vector of a protein is exactly the one that its head receives.

    Args:
        fasta: Paths of the FASTA files; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the residues to compute, if the input can be read twice, and the residues of
            each protein that was computed and saved.

    Raises:
        ChangedInputError: A file changed between its first reading and the end of the computation.
        ConfigError: The options request an estimate, which `plan_embedding` makes.
        ProtembedError: The input, the model or the output is invalid; see `protembed.errors`.
    """
    options, callbacks, files = options or EmbedOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    if options.embedding.dry_run:
        raise ConfigError("dry_run", True, "an estimate is made by `plan_embedding`")
    job = EmbeddingJob.prepare(files, options)
    is_read_twice = job.result.output is not None or job.selection.shard is not None
    with unchanged_inputs(), seekable_inputs(files, needed=is_read_twice) as paths:
        fingerprint = job.fingerprint(paths)
        with job.result.claim(fingerprint) as claim:
            if claim.recorded is not None:
                return replace(_summary(job, claim.recorded), was_done=True)
            with embedding_writer(claim, fingerprint) as writer:
                return _compute(job, paths, writer, options.compute, callbacks)
