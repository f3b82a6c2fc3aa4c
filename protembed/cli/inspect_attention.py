"""`protembed inspect-attention`."""

from protembed.cli.display import Display
from protembed.cli.options import FastaPaths, configured
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig, ShowConfig


@configured
def inspect_attention(
    fasta: FastaPaths,
    model: ModelConfig,
    attention: AttentionConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Look into a model: attention maps per layer and head, statistics of every head, figures."""
    from protembed.tasks.inspect_attention import inspect_attention as inspect

    display = Display(show)
    display.say_fetching(model)
    with display.counting("inspected") as counter:
        summary = inspect(fasta, model, attention, reader=reader, compute=compute, on_protein=counter.advance)
    display.say_model(model)
    display.warn(summary.warnings)
    contacts = ", contacts" if summary.has_contacts else ""
    display.summary(
        summary,
        f"{summary.output}: statistics of every head over {summary.num_proteins:,} proteins; maps{contacts} and "
        f"figures of {summary.num_maps:,}",
    )
