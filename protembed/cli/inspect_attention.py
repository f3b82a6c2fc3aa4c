"""`protembed inspect-attention`."""

from typing import TYPE_CHECKING

from protembed.callbacks import Callbacks
from protembed.cli.display import Display
from protembed.cli.messages import attention_plan_line, contact_lines, site_lines
from protembed.cli.options import FastaPaths, configured
from protembed.config.common import ConsoleConfig
from protembed.config.inspect_attention import AttentionOptions
from protembed.text import pluralize

if TYPE_CHECKING:
    from protembed.attention.inspect_attention import AttentionPlan


@configured
def inspect_attention(fasta: FastaPaths, options: AttentionOptions, show: ConsoleConfig) -> None:
    """Look inside a model: attention maps, statistics of every head, contacts against structures, annotated sites."""
    from protembed.attention.inspect_attention import inspect_attention as inspect

    display = Display(show)
    display.announce_download(options.model)
    with display.progress("inspected") as counter:

        def show_plan(plan: "AttentionPlan") -> None:
            display.say(attention_plan_line(plan))
            display.warn(plan.warnings)
            counter.expect(plan.num_residues)

        summary = inspect(fasta, options, Callbacks(on_plan=show_plan, on_progress=counter.advance))
    display.announce_model(options.model)
    display.warn([warning for warning in summary.warnings if warning not in summary.plan.warnings])
    contacts = ", contacts" if summary.has_contacts else ""
    display.summary(
        summary,
        f"{summary.output}: statistics of every head over {pluralize(summary.num_proteins, 'protein')}; maps{contacts} "
        f"and figures of {pluralize(summary.num_maps, 'protein')}",
        *contact_lines(summary),
        *site_lines(summary),
    )
