"""Embedding: from FASTA and a model to one vector per protein, or one per residue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protembed._version import __version__
from protembed.callbacks import Callbacks
from protembed.config.common import DeviceConfig, InputConfig, ModelConfig, choose_region
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device, choose_precision, peak_memory
from protembed.embedding.estimate import Workload
from protembed.embedding.formats import FormatName, choose_format
from protembed.embedding.metadata import check_replaceable, finished_result
from protembed.embedding.selection import Selection, Shard
from protembed.embedding.writer import clean_up, embeddings_writer, finish_interrupted
from protembed.errors import ConfigError
from protembed.inference.applicability import InputComparison
from protembed.inference.embedding import Embedder, Embedding
from protembed.inference.engine import InferenceJob, inference_engine
from protembed.io.reading import (
    STANDARD_STREAM,
    PathLike,
    as_paths,
    check_inputs,
    default_path,
    follow_link,
    sha256_of_inputs,
    unchanged_inputs,
)
from protembed.io.result import result_lock
from protembed.io.writing import seekable_inputs
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint

# For the estimate of `--dry-run`, in bytes: a number as text, the lines about a protein beside its vectors, the
# overhead of a dataset in HDF5, and a float32 number in memory, where the vectors of two chunks are held at once.
_TEXT_BYTES_PER_NUMBER, _IDS_BYTES, _DATASET_BYTES, _BYTES_PER_HELD_NUMBER = 12, 350, 500, 2 * 4


@dataclass(frozen=True, kw_only=True)
class EmbedSummary:
    """What was embedded.

    Attributes:
        output: Path of the result; None for stdout.
        num_windowed: Proteins that were computed in several windows.
        window_residues: Length of a window in residues.
        num_refused: Records that were left out on request.
        num_resumed: Proteins that an earlier process had computed.
        dim: Width of a vector.
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
    num_resumed: int
    dim: int
    was_done: bool
    region: str | None
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EmbedPlan:
    """What a run would compute, and the time, memory and disk space that it would need.

    Attributes:
        output: Path of the result; None for stdout.
        longest: Residues of the longest protein.
        num_windows: Windows of all proteins; a protein that fits into a window counts as one.
        num_windowed: Proteins that are computed in several windows.
        dim: Width of a vector.
        seconds: Estimated time of the computation, from a short measurement.
        memory_bytes: Peak memory.
        disk_bytes: Peak disk space of the result and the files beside it.
        warnings: Messages about the model and the input.
    """

    output: Path | None
    num_proteins: int
    num_residues: int
    longest: int
    num_windows: int
    num_windowed: int
    dim: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is known before the input is read.

    Attributes:
        output: Path of the result, with links followed; `-` is stdout.
        checkpoint: Model, on the device that computes.
        precision: Precision of the matrix products.
    """

    output: Path
    format_name: FormatName
    config: EmbedConfig
    resolved: ResolvedModel
    checkpoint: Checkpoint
    embedder: Embedder
    selection: Selection
    precision: torch.dtype

    @classmethod
    def prepare(
        cls,
        fasta: Sequence[Path],
        model: ModelConfig,
        config: EmbedConfig,
        reader: InputConfig,
        compute: DeviceConfig,
    ) -> "_Job":
        shard = None if config.shard is None else Shard.parse(config.shard)
        part = "" if shard is None else f".{shard.number}-of-{shard.total}"
        suffix = config.format or ("h5" if config.per_residue else "npy")
        named = config.output or default_path(fasta[0], f"{part}.{suffix}")
        format_name = choose_format(named, config.format, per_residue=config.per_residue)
        output = follow_link(named)
        check_replaceable(output, fasta)
        if config.per_residue and config.pooling != "auto":
            raise ConfigError("pooling", config.pooling, "with `per_residue` vectors are not pooled")
        device = choose_device(compute)
        resolved = locate_model(model.model)
        checkpoint = load_checkpoint(resolved)
        window_residues = config.window_residues or checkpoint.metadata.window_residues
        embedder = Embedder.from_checkpoint(
            checkpoint, layer=config.layer, pooling=config.pooling, window_residues=window_residues
        )
        # A head was trained on vectors in float32, and `predict` uses float32 too.
        is_exact = config.precision == "auto" and checkpoint.task_head is not None
        precision = torch.float32 if is_exact else choose_precision(config.precision, device)
        checkpoint.to(device).encoder.set_compute_dtype(precision)
        return cls(
            output=output,
            format_name=format_name,
            config=config,
            resolved=resolved,
            checkpoint=checkpoint,
            embedder=embedder,
            selection=Selection(
                on_illegal=reader.on_illegal,
                long_proteins=config.long_proteins,
                window_residues=window_residues,
                shard=shard,
                region=choose_region(config.region, checkpoint.metadata.region),
            ),
            precision=precision,
        )

    @property
    def warnings(self) -> list[str]:
        """Messages about the model; none if the options specify everything that the model does not record."""
        is_specified = self.config.layer != "auto" and self.config.window_residues is not None
        return [] if is_specified else self.checkpoint.warnings

    @property
    def dim(self) -> int:
        """Width of a vector."""
        width: int = self.embedder.slices(per_residue=self.config.per_residue)[-1]["stop"]
        return width

    @property
    def numbers_per_token(self) -> int:
        """Numbers that are held in memory for each token while its protein is computed."""
        return len(self.embedder.layers) * self.checkpoint.encoder.shape.dim

    @property
    def computation(self) -> InferenceJob[Embedding]:
        """Computation that the engine runs on each batch."""
        return self.embedder.residues() if self.config.per_residue else self.embedder.proteins()

    def fingerprint(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Return the settings that make two results the same, in plain JSON values."""
        embedder, selection = self.embedder, self.selection
        return {
            "protembed_version": __version__,
            "model_name": self.resolved.name,
            "model_revision": self.resolved.revision,
            "model_sha256": self.checkpoint.sha256(),
            "input_sha256": None if self.output == STANDARD_STREAM else sha256_of_inputs(paths),
            "on_illegal": selection.on_illegal,
            "long": selection.long_proteins,
            "window_residues": selection.window_residues,
            "shard": None if selection.shard is None else str(selection.shard),
            **({} if selection.region is None else {"region": str(selection.region)}),
            "per_residue": self.config.per_residue,
            "layer": list(embedder.layers),
            "pooling": None if self.config.per_residue else list(embedder.poolings),
            "slices": embedder.slices(per_residue=self.config.per_residue),
            "precision": str(self.precision).removeprefix("torch."),
            "dtype": self.config.store_dtype,
            "format": self.format_name,
            **({"h5_names": self.config.h5_names} if self.format_name == "h5" else {}),
            "dim": self.dim,
        }

    def summary(
        self, counts: Mapping[str, Any], *, num_resumed: int = 0, was_done: bool = False, warnings: Sequence[str] = ()
    ) -> EmbedSummary:
        """Make the summary from the counts of a writer or a meta file."""
        return EmbedSummary(
            output=None if self.output == STANDARD_STREAM else self.output,
            num_proteins=counts["num_proteins"],
            num_residues=counts["num_residues"],
            num_windowed=counts["num_windowed"],
            window_residues=self.selection.window_residues,
            num_refused=counts["num_refused"],
            num_resumed=num_resumed,
            dim=self.dim,
            was_done=was_done,
            region=None if self.selection.region is None else str(self.selection.region),
            warnings=warnings,
        )


def _embed(
    job: _Job,
    paths: Sequence[Path],
    fingerprint: Mapping[str, Any],
    compute: DeviceConfig,
    callbacks: Callbacks,
) -> EmbedSummary:
    statistics = ReadStatistics()
    with (
        embeddings_writer(job.output, fingerprint, force=job.config.force) as writer,
        inference_engine(compute, job.checkpoint.device, job.checkpoint.encoder.shape, job.numbers_per_token) as engine,
    ):
        num_resumed = writer.num_committed
        if job.output != STANDARD_STREAM:
            # Reading all records first takes a thousandth of the time, and finds an error in the last one at once.
            remaining = islice(job.selection.read(paths, ReadStatistics()), num_resumed, None)
            callbacks.on_start(sum(len(record.sequence) for record in remaining))
        comparison = InputComparison.from_checkpoint(job.checkpoint, job.selection.region)
        records = islice(comparison.observe(job.selection.read(paths, statistics)), num_resumed, None)
        for chunk in engine.run_committed(job.computation, records):
            for record, embedding in chunk:
                writer.add(record, embedding.values, embedding.num_windows, embedding.overlap_cosine)
                callbacks.on_progress(len(record.sequence))
            check_inputs()  # before rows become safe, because they are stored under the hash of the input
            writer.commit()
        check_inputs()
        counts = writer.finish(statistics.skipped)
        warnings = [*job.warnings, *statistics.warnings(), *comparison.warnings()]
    return job.summary(counts, num_resumed=num_resumed, warnings=warnings)


def _plan(job: _Job, paths: Sequence[Path], compute: DeviceConfig) -> EmbedPlan:
    """Count the proteins, and compute a few of them to estimate the time for all."""
    shape, numbers_per_token = job.checkpoint.encoder.shape, job.numbers_per_token
    statistics, workload = ReadStatistics(), Workload(shape)
    comparison = InputComparison.from_checkpoint(job.checkpoint, job.selection.region)
    workload.count(comparison.observe(job.selection.read(paths, statistics)), job.computation)
    with inference_engine(compute, job.checkpoint.device, shape, numbers_per_token) as engine:
        seconds = workload.seconds(engine, job.computation)
        held_tokens = engine.tokens_per_chunk + workload.longest
    num_rows = workload.num_residues if job.config.per_residue else workload.num_proteins
    itemsize = np.dtype(job.config.store_dtype).itemsize
    # Other formats than .npy are made from an array of rows, which exists until they are complete.
    is_converted = job.format_name != "npy" and (job.format_name != "tsv" or job.output != STANDARD_STREAM)
    per_number = (_TEXT_BYTES_PER_NUMBER if job.format_name == "tsv" else itemsize) + itemsize * is_converted
    per_protein = _IDS_BYTES + (_DATASET_BYTES if job.format_name == "h5" else 0)
    is_held = job.config.per_residue or workload.num_windowed > 0
    held_bytes = _BYTES_PER_HELD_NUMBER * numbers_per_token * held_tokens * is_held
    return EmbedPlan(
        output=None if job.output == STANDARD_STREAM else job.output,
        num_proteins=workload.num_proteins,
        num_residues=workload.num_residues,
        longest=workload.longest,
        num_windows=workload.num_windows,
        num_windowed=workload.num_windowed,
        dim=job.dim,
        seconds=seconds,
        memory_bytes=peak_memory(job.checkpoint.device) + held_bytes,
        disk_bytes=num_rows * job.dim * per_number + workload.num_proteins * per_protein,
        warnings=[*job.warnings, *statistics.warnings(), *comparison.warnings()],
    )


def embed_fasta(
    fasta: Sequence[PathLike], options: EmbedOptions | None = None, callbacks: Callbacks | None = None
) -> EmbedSummary | None:
    """Compute a vector for each protein, in the order of the input; the same call resumes an interrupted run.

    With a fine-tuned model the vector of a protein is exactly the one that its head receives.

    Args:
        fasta: Paths of the FASTA files; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan of a dry run, the residues to compute, if the input can be read
            twice, and the residues of each finished protein.

    Returns:
        What was embedded; None after a dry run, which writes nothing.

    Raises:
        ChangedInputError: A file changed between its first reading and the end of the computation.
        ProtembedError: The input, the model or the output is invalid; see `protembed.errors`.
    """
    options, callbacks, files = options or EmbedOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    embedding, compute = options.embedding, options.compute
    job = _Job.prepare(files, options.model, embedding, options.reader, compute)
    is_read_twice = job.output != STANDARD_STREAM or job.selection.shard is not None or embedding.dry_run
    with unchanged_inputs(), seekable_inputs(files, needed=is_read_twice) as paths:
        if embedding.dry_run:
            callbacks.on_plan(_plan(job, paths, compute))
            return None
        fingerprint = job.fingerprint(paths)
        with result_lock(job.output):
            if job.output != STANDARD_STREAM and (finish_interrupted(job.output, fingerprint) or not embedding.force):
                done = finished_result(job.output, fingerprint)
                if done is not None:
                    clean_up(job.output, fingerprint)
                    return job.summary(done, was_done=True)
            return _embed(job, paths, fingerprint, compute, callbacks)
