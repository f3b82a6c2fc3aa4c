"""Embedding: from FASTA and a model to one vector per protein, or one per residue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protembed
from protembed.config.embed import EmbedConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig
from protembed.data.embeddings import choose_format, embeddings_file, finished_result
from protembed.data.fasta import ReadReport, read_fasta
from protembed.device import choose_device, worker_pool
from protembed.files import STANDARD_STREAM, default_path, sha256_of_inputs
from protembed.inference.engine import Engine
from protembed.inference.representation import representation_of
from protembed.model.catalog import find_model, model_name
from protembed.model.checkpoint import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class EmbedSummary:
    """What was embedded.

    Attributes:
        output: the result's file; None for stdout.
        num_proteins: rows.
        num_residues: of all proteins.
        num_refused: records left out on request.
        dim: the width of a vector.
        was_done: whether the result stood there already.
        warnings: what the user should know about the input.
    """

    output: Path | None
    num_proteins: int
    num_residues: int
    num_refused: int
    dim: int
    was_done: bool
    warnings: Sequence[str]


def embed_fasta(
    fasta: Sequence[Path],
    model: ModelConfig,
    embedding: EmbedConfig,
    *,
    reader: ReaderConfig | None = None,
    compute: ComputeConfig | None = None,
    on_protein: Callable[[int], None] = lambda num_residues: None,
) -> EmbedSummary:
    """Turn proteins into vectors, in the order of the input.

    Every protein is computed whole, whatever its length; with a fine-tuned model the vector of a protein is exactly
    the one that its head sees.

    Args:
        fasta: the files; `-` is stdin.
        model: which model.
        embedding: where to, and which vectors.
        reader: how to read; the defaults if None.
        compute: where to compute; the defaults if None.
        on_protein: told the residues of each protein that is finished.

    Raises:
        ProtembedError: the input, the model or the output does not allow it; see `protembed.errors`.
    """
    reader, compute = reader or ReaderConfig(), compute or ComputeConfig()
    output = embedding.output or default_path(fasta[0], ".h5" if embedding.per_residue else ".npy")
    format_name = choose_format(output, embedding.format, per_residue=embedding.per_residue)
    checkpoint = load_checkpoint(find_model(model.model))
    representation = representation_of(checkpoint, layer=embedding.layer, pooling=embedding.pooling)
    meta = {
        "protembed_version": protembed.__version__,
        "model_name": model_name(model.model),
        "model_sha256": checkpoint.sha256(),
        "input_sha256": sha256_of_inputs(fasta),
        "on_illegal": reader.on_illegal,
        "layer": representation.layer,
        "pooling": None if embedding.per_residue else representation.pooling,
        "dtype": embedding.dtype,
        "format": format_name,
        "dim": checkpoint.encoder.shape.dim,
    }
    if output != STANDARD_STREAM and not embedding.force and (done := finished_result(output, meta)) is not None:
        return _summary_of_finished(output, done)

    device, report = choose_device(compute), ReadReport()
    checkpoint.to(device)
    records = read_fasta(fasta, on_illegal=reader.on_illegal, report=report)
    compute_vectors = representation.residues if embedding.per_residue else representation.proteins
    with worker_pool(compute, device) as pool, embeddings_file(output, meta, report.refused) as vectors:
        for record, vector in Engine(pool=pool).run(compute_vectors, records):
            vectors.add(record, vector)
            on_protein(len(record.sequence))
    return EmbedSummary(
        output=None if output == STANDARD_STREAM else output,
        num_proteins=report.num_records,
        num_residues=report.num_residues,
        num_refused=len(report.refused),
        dim=checkpoint.encoder.shape.dim,
        was_done=False,
        warnings=report.warnings(),
    )


def _summary_of_finished(output: Path, meta: Mapping[str, Any]) -> EmbedSummary:
    return EmbedSummary(
        output=output,
        num_proteins=meta["num_proteins"],
        num_residues=meta["num_residues"],
        num_refused=meta["num_refused"],
        dim=meta["dim"],
        was_done=True,
        warnings=[],
    )
