"""`protembed map`."""

from protembed.cli.display import Display
from protembed.cli.next_steps import after_map
from protembed.cli.options import Results, configured
from protembed.cli.search_messages import map_summary_lines
from protembed.config.map import MapOptions


@configured
def map(embeddings: Results, options: MapOptions, display: Display) -> None:
    """Draw every protein of a result of `embed` as a point on a page, near those with similar vectors.

    Examples:
        protembed map proteins.npy
        protembed map proteins.npy --labels families.csv --colour family
    """
    from protembed.search.map import make_map

    with display.progress("done", "step", "step") as progress:
        callbacks = display.callbacks(on_start=progress.expect, on_progress=progress.advance)
        summary = make_map(embeddings, options, callbacks)
    display.summary(summary, map_summary_lines(summary), next_step=after_map(summary))
