"""`protembed embed`."""

from protembed.cli.display import Display
from protembed.cli.messages import embed_plan_lines, embed_summary_lines
from protembed.cli.options import FastaPaths, configured
from protembed.config.common import ConsoleConfig
from protembed.config.embed import EmbedOptions
from protembed.io.reading import STANDARD_STREAM


@configured
def embed(fasta: FastaPaths, options: EmbedOptions, show: ConsoleConfig) -> None:
    """Turn proteins into vectors, one per protein or one per residue. The same command resumes an interrupted run.

    Examples:
        protembed embed proteins.fasta
        protembed embed proteins.fasta -o residues.h5 --per-residue
        protembed embed proteins.fasta.gz -m esm2_t12_35M -o vectors.npy
        zcat proteins.fasta.gz | protembed embed - -o - --format tsv > vectors.tsv
    """
    from protembed.embedding.embed import embed_fasta

    display = Display(show, data_on_stdout=options.embedding.output == STANDARD_STREAM)
    display.announce_download(options.model)
    if options.embedding.dry_run:
        from protembed.embedding.estimate import plan_embedding

        with display.progress("embedded"):
            plan = plan_embedding(fasta, options)
        display.announce_model(options.model)
        display.summary(plan, embed_plan_lines(plan))
        return
    with display.progress("embedded") as progress, display.resume_hint(progress):
        callbacks = display.callbacks(on_start=progress.expect, on_progress=progress.advance)
        summary = embed_fasta(fasta, options, callbacks)
    display.announce_model(options.model)
    display.summary(summary, embed_summary_lines(summary, options.embedding.region))
