"""`protembed score`."""

from protembed.callbacks import Callbacks
from protembed.cli.display import Display
from protembed.cli.options import VariantsPath, configured
from protembed.config.common import ConsoleConfig
from protembed.config.score import ScoreOptions
from protembed.io.reading import STANDARD_STREAM
from protembed.text import pluralize


@configured
def score(variants: VariantsPath, options: ScoreOptions, show: ConsoleConfig) -> None:
    """Score variants zero-shot: how likely the model finds each mutation. Higher is better."""
    from protembed.scoring.score import score_variants

    display = Display(show, data_on_stdout=options.scoring.output == STANDARD_STREAM)
    display.announce_download(options.model)
    with display.progress("computed", "crop", "token") as counter:
        callbacks = Callbacks(on_start=counter.expect, on_progress=counter.advance)
        summary = score_variants(variants, options, callbacks)
    display.announce_model(options.model)
    display.warn(summary.warnings)
    what = f"{pluralize(summary.num_variants, 'variant')} of {pluralize(summary.num_wild_types, 'wild type')}"
    positions = pluralize(summary.num_positions, "position")
    line = f"{summary.output or 'stdout'}: {summary.method} of {what}, mutated at {positions}"
    display.summary(summary, line)
