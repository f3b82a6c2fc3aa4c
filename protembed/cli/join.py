"""`protembed join`."""

from protembed.callbacks import Callbacks
from protembed.cli.display import Display
from protembed.cli.messages import join_summary_lines
from protembed.cli.options import Results, configured
from protembed.config.common import ConsoleConfig
from protembed.config.embed import JoinOptions
from protembed.io.reading import STANDARD_STREAM


@configured
def join(results: Results, options: JoinOptions, show: ConsoleConfig) -> None:
    """Join the shards of a result of `embed`, or results of several inputs that were made in the same way, into one.

    Examples:
        protembed join proteins.*-of-8.npy
        protembed join human.h5 mouse.h5 -o both.h5
        protembed join proteins.*-of-8.npz -o - --format tsv | gzip > all.tsv.gz
    """
    from protembed.embedding.join import join_embeddings

    display = Display(show, data_on_stdout=options.join.output == STANDARD_STREAM)
    with display.progress("joined") as progress:
        callbacks = Callbacks(on_start=progress.expect, on_progress=progress.advance, on_warning=display.warn)
        summary = join_embeddings(results, options, callbacks)
    display.summary(summary, join_summary_lines(summary))
