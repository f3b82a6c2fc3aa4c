"""`protembed score`."""

from protembed.cli.display import Display
from protembed.cli.options import VariantsPath, configured
from protembed.config.score import ScoreConfig, VariantsConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig, ShowConfig
from protembed.inputs import STANDARD_STREAM


@configured
def score(
    variants: VariantsPath,
    model: ModelConfig,
    table: VariantsConfig,
    scoring: ScoreConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Score variants without having learned from any: what a model thinks of each mutation; higher is better."""
    from protembed.tasks.score import score_variants

    display = Display(show, data_on_stdout=scoring.output == STANDARD_STREAM)
    display.say_fetching(model)
    with display.counting("computed", "crop", "token") as counter:
        summary = score_variants(
            variants,
            model,
            table,
            scoring,
            reader=reader,
            compute=compute,
            on_start=counter.expect,
            on_crop=counter.advance,
        )
    display.say_model(model)
    display.warn(summary.warnings)
    wild_types = "1 wild type" if summary.num_wild_types == 1 else f"{summary.num_wild_types:,} wild types"
    display.summary(
        summary,
        f"{summary.output or 'stdout'}: {summary.method} of {summary.num_variants:,} variants of {wild_types}, mutated "
        f"at {summary.num_positions:,} positions",
    )
