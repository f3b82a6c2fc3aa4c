"""`protembed score`."""

from protembed.cli.display import Display
from protembed.cli.options import VariantsPath, configured
from protembed.config.common import ConsoleConfig, DeviceConfig, InputConfig, ModelConfig
from protembed.config.score import ScoreConfig, VariantTableConfig
from protembed.io.reading import STANDARD_STREAM
from protembed.text import pluralize


@configured
def score(
    variants: VariantsPath,
    model: ModelConfig,
    table: VariantTableConfig,
    scoring: ScoreConfig,
    reader: InputConfig,
    compute: DeviceConfig,
    show: ConsoleConfig,
) -> None:
    """Score variants zero-shot: how likely the model finds each mutation. Higher is better."""
    from protembed.scoring.score import score_variants

    display = Display(show, data_on_stdout=scoring.output == STANDARD_STREAM)
    display.announce_download(model)
    with display.progress("computed", "crop", "token") as counter:
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
    display.announce_model(model)
    display.warn(summary.warnings)
    what = f"{pluralize(summary.num_variants, 'variant')} of {pluralize(summary.num_wild_types, 'wild type')}"
    positions = pluralize(summary.num_positions, "position")
    line = f"{summary.output or 'stdout'}: {summary.method} of {what}, mutated at {positions}"
    display.summary(summary, line)
