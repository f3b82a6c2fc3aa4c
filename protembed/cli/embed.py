"""`protembed embed`."""

from protembed.cli.display import Display
from protembed.cli.options import FastaPaths, configured
from protembed.config.embed import EmbedConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig, ShowConfig
from protembed.files import STANDARD_STREAM


@configured
def embed(
    fasta: FastaPaths,
    model: ModelConfig,
    embedding: EmbedConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Turn proteins into vectors: one per protein, or one per residue with --per-residue."""
    from protembed.tasks.embed import embed_fasta

    display = Display(show, data_on_stdout=embedding.output == STANDARD_STREAM)
    with display.counting("embedded") as counter:
        summary = embed_fasta(fasta, model, embedding, reader=reader, compute=compute, on_protein=counter.advance)
    display.say_model(model)
    display.warn(summary.warnings)
    if summary.was_done:
        display.summary(summary, f"{summary.output} is there already, made by the same command from the same input")
        return
    display.summary(
        summary,
        f"{summary.output or 'stdout'}: {summary.num_proteins:,} proteins, {summary.num_residues:,} residues, "
        f"{summary.dim} numbers each",
    )
