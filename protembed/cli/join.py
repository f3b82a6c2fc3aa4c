"""`protembed join`."""

from protembed.cli.display import Display
from protembed.cli.messages import join_summary_lines
from protembed.cli.next_steps import after_join
from protembed.cli.options import Results, configured
from protembed.config.embed import JoinOptions


@configured
def join(results: Results, options: JoinOptions, display: Display) -> None:
    """Join the shards of a result of `embed`, or results of several inputs that were made in the same way, into one.

    Examples:
        protembed join proteins.*-of-8.npy
        protembed join human.h5 mouse.h5 -o both.h5
        protembed join proteins.*-of-8.npz -o - --format tsv | gzip > all.tsv.gz
    """
    from protembed.embedding.join import join_embeddings

    with display.progress("joined") as progress:
        callbacks = display.callbacks(on_start=progress.expect, on_progress=progress.advance)
        summary = join_embeddings(results, options, callbacks)
    display.summary(summary, join_summary_lines(summary), next_step=after_join(summary))
