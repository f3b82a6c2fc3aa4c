"""`protembed embed`."""

from protembed.cli.display import Display
from protembed.cli.messages import embed_plan_lines, embed_summary_lines
from protembed.cli.next_steps import after_embed
from protembed.cli.options import FastaPaths, configured
from protembed.config.embed import EmbedOptions


@configured
def embed(fasta: FastaPaths, options: EmbedOptions, display: Display) -> None:
    """Turn proteins into vectors, one per protein or one per residue. The same command resumes an interrupted run.

    Examples:
        protembed embed proteins.fasta
        protembed embed proteins.fasta -o residues.h5 --per-residue
        protembed embed proteins.fasta.gz -m esm2_t12_35M -o vectors.npy
        zcat proteins.fasta.gz | protembed embed - -o - --format tsv > vectors.tsv
    """
    from protembed.embedding.embed import embed_fasta

    display.announce_download()
    if options.embedding.dry_run:
        from protembed.embedding.estimate import plan_embedding

        with display.progress("embedded"):
            plan = plan_embedding(fasta, options)
        display.announce_model()
        display.summary(plan, embed_plan_lines(plan), is_dry_run=True)
        return
    with display.progress("embedded") as progress, display.resume_hint(progress):

        def begin(num_residues: int) -> None:
            display.announce_model()
            progress.expect(num_residues)

        callbacks = display.callbacks(on_start=begin, on_computed=progress.compute, on_progress=progress.advance)
        summary = embed_fasta(fasta, options, callbacks)
    display.announce_model()
    lines = embed_summary_lines(summary, options.embedding.region)
    display.summary(summary, lines, next_step=after_embed(summary, fasta, options))
