"""Embedding: from FASTA and a model to one vector per protein, or one per residue. Imports torch only to compute."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.embed import EmbedOptions
from protembed.data.fasta import ReadStatistics
from protembed.embedding.metadata import COUNTS
from protembed.embedding.request import EmbeddingRequest
from protembed.errors import ConfigError
from protembed.io.reading import Paths, as_paths, check_inputs, unchanged_inputs
from protembed.io.result import Claim
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
        report: Path of the page about the result; None if it was not requested.
        findings: What the page says that one should look at, each as a clause.
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
    report: Path | None = None
    findings: Sequence[str] = ()
    warnings: Sequence[str] = ()


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
    request = EmbeddingRequest.make(files, options)
    is_read_twice = request.result.output is not None or request.selection.shard is not None
    with unchanged_inputs(), seekable_inputs(files, needed=is_read_twice) as paths:
        fingerprint = request.fingerprint(paths)
        with request.result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                summary = replace(_summary(request, claim.recorded), was_done=True)
            else:
                summary = _compute(request, paths, claim, fingerprint, callbacks)
            return _with_report(summary, request, files, paths) if options.embedding.report else summary


def _compute(
    request: EmbeddingRequest,
    paths: Sequence[Path],
    claim: Claim,
    fingerprint: Mapping[str, Any],
    callbacks: Callbacks,
) -> EmbedSummary:
    """Compute and write the vectors that are missing, and publish the result."""
    selection, statistics = request.selection, ReadStatistics()
    lengths = None
    if request.result.output is not None:
        # Reading all records first takes a thousandth of the time, and finds an error in the last one at once.
        lengths = array("q", (len(record.sequence) for record in selection.read(paths, ReadStatistics())))
    # Only now, because torch takes seconds to import, and all of the above may already have refused the command.
    from protembed.embedding.job import EmbeddingJob
    from protembed.embedding.writer import embedding_writer

    job = EmbeddingJob.load(request, fingerprint["precision"], callbacks)
    comparison = job.compare_input()
    with (
        embedding_writer(claim, fingerprint) as writer,
        job.engine() as engine,
    ):
        num_resumed = writer.num_committed
        if lengths is not None:
            callbacks.on_start(sum(lengths[num_resumed:]))
            if num_resumed == 0 and (note := job.describe_faster_precision(sum(lengths))):
                callbacks.on_note(note)
        records = islice(comparison.observe(selection.read(paths, statistics)), num_resumed, None)
        for chunk in engine.run_committed(job.computation, records, lambda tokens: callbacks.on_computed(tokens - 2)):
            for record, embedding in chunk:
                writer.add(record, embedding)
            check_inputs()  # before rows become safe, because they are stored under the hash of the input
            writer.commit()
            for record, _ in chunk:
                callbacks.on_progress(len(record.sequence))
        check_inputs()
        summary = _summary(request, writer.publish(statistics.skipped))
    return replace(summary, num_resumed=num_resumed, warnings=job.warnings(statistics, comparison))


def _with_report(
    summary: EmbedSummary, request: EmbeddingRequest, files: Sequence[Path], paths: Sequence[Path]
) -> EmbedSummary:
    """Write the page about a finished result; `paths` are the files that can be read again."""
    # Only on request, because matplotlib takes half a second to import.
    from protembed.embedding.input_residues import InputResidues
    from protembed.embedding.report import write_report
    from protembed.embedding.vector_statistics import choose_sample

    assert summary.output is not None, "a page is written beside a file"
    sample = choose_sample(summary.num_residues, summary.dim) if request.config.per_residue else None
    residues = InputResidues.read(request.selection, paths, sample)
    report = write_report(summary.output, request.options, files, residues)
    return replace(summary, report=report.path, findings=report.findings)


def _summary(request: EmbeddingRequest, meta: Mapping[str, Any]) -> EmbedSummary:
    return EmbedSummary(
        output=request.result.output,
        **{name: meta[name] for name in COUNTS},
        window_residues=request.selection.window_residues,
        dim=request.dim,
        region=request.region,
    )
