"""`protembed score`."""

from protembed.cli.display import Display
from protembed.cli.messages import score_summary_lines
from protembed.cli.options import VariantsPath, configured
from protembed.config.common import ConsoleConfig
from protembed.config.score import ScoreOptions
from protembed.io.reading import STANDARD_STREAM


@configured
def score(variants: VariantsPath, options: ScoreOptions, show: ConsoleConfig) -> None:
    """Score variants zero-shot: how likely the model finds each mutation. Higher is better.

    Examples:
        protembed score variants.csv --wild-type wild_type.fasta
        protembed score variants.csv --sequence wild_type --mutations mutant
    """
    from protembed.scoring.score import score_variants

    display = Display(show, data_on_stdout=options.scoring.output == STANDARD_STREAM)
    display.announce_download(options.model)
    with display.progress("computed", "crop", "token") as progress:
        callbacks = display.callbacks(on_start=progress.expect, on_progress=progress.advance)
        summary = score_variants(variants, options, callbacks)
    display.announce_model(options.model)
    display.summary(summary, score_summary_lines(summary))
