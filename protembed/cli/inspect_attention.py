"""`protembed inspect-attention`."""

from typing import TYPE_CHECKING

from protembed.cli.display import Display
from protembed.cli.messages import attention_plan_line, attention_summary_lines
from protembed.cli.next_steps import after_attention
from protembed.cli.options import FastaPaths, configured
from protembed.config.inspect_attention import AttentionOptions

if TYPE_CHECKING:
    from protembed.attention.summary import AttentionPlan


@configured
def inspect_attention(fasta: FastaPaths, options: AttentionOptions, display: Display) -> None:
    """Look inside a model: attention maps, statistics of every head, contacts against structures, annotated sites.

    Examples:
        protembed inspect-attention proteins.fasta --save-maps 3
        protembed inspect-attention proteins.fasta --structures pdb --sites s.tsv
    """
    from protembed.attention.inspect_attention import inspect_attention as inspect

    display.announce_download()
    with display.progress("inspected") as progress:

        def begin(plan: "AttentionPlan") -> None:
            display.announce_model()
            display.plan(plan, [*plan.notes, attention_plan_line(plan)])
            progress.expect(plan.num_residues)

        callbacks = display.callbacks(on_plan=begin, on_progress=progress.advance)
        summary = inspect(fasta, options, callbacks)
    display.announce_model()
    display.summary(summary, attention_summary_lines(summary), next_step=after_attention(summary))
