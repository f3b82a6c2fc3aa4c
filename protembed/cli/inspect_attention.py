"""`protembed inspect-attention`."""

from typing import TYPE_CHECKING

from protembed.cli.display import Display
from protembed.cli.options import FastaPaths, configured
from protembed.config.common import ComputeConfig, ModelConfig, ReaderConfig, ShowConfig
from protembed.config.inspect_attention import AttentionConfig
from protembed.io.text import count, file_size

if TYPE_CHECKING:
    from protembed.attention.inspect_attention import AttentionPlan, AttentionSummary


@configured
def inspect_attention(
    fasta: FastaPaths,
    model: ModelConfig,
    attention: AttentionConfig,
    reader: ReaderConfig,
    compute: ComputeConfig,
    show: ShowConfig,
) -> None:
    """Look into a model: attention maps, statistics of every head, contacts beside structures, annotated sites."""
    from protembed.attention.inspect_attention import inspect_attention as inspect

    display = Display(show)
    display.say_fetching(model)
    with display.counting("inspected") as counter:

        def show_plan(plan: "AttentionPlan") -> None:
            display.say(attention_plan_line(plan))
            display.warn(plan.warnings)
            counter.expect(plan.num_residues)

        summary = inspect(
            fasta,
            model,
            attention,
            reader=reader,
            compute=compute,
            on_plan=show_plan,
            on_protein=counter.advance,
        )
    display.say_model(model)
    display.warn([warning for warning in summary.warnings if warning not in summary.plan.warnings])
    contacts = ", contacts" if summary.has_contacts else ""
    display.summary(
        summary,
        f"{summary.output}: statistics of every head over {count(summary.num_proteins, 'protein')}; maps{contacts} "
        f"and figures of {summary.num_maps:,}",
        *contact_lines(summary),
        *site_lines(summary),
    )


def attention_plan_line(plan: "AttentionPlan") -> str:
    """Say what there is to look at, and what it will take."""
    counts = f"{count(plan.num_proteins, 'protein')}, {count(plan.num_residues, 'residue')}"
    room = f"{file_size(plan.memory_bytes)} of memory and {file_size(plan.disk_bytes)} of disk"
    return f"{counts}, the longest {plan.longest_id!r} of {plan.longest:,}; about {room}"


def contact_lines(summary: "AttentionSummary") -> list[str]:
    """Say how precisely long-range contacts are predicted, beside what is reached without looking."""
    lines = [f"{count(summary.num_structures, 'protein')} shown by a structure"] if summary.num_structures else []
    for row in summary.precisions:
        if row["range"] == "long" and row["pairs"] in ("L", "L/5") and row["precision"] is not None:
            span = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
            lines.append(
                f"{row['predictor']}, long-range precision at {row['pairs']}: {row['precision']:.3f}{span}; "
                f"random pairs {row['random']:.3f}"
            )
    return lines


def site_lines(summary: "AttentionSummary") -> list[str]:
    """Say how many heads attend to the residues of each label, and on what that rests."""
    lines = []
    for label, found in summary.sites.items():
        heads, proteins = count(summary.num_following[label], "head"), count(found.num_proteins, "protein")
        residues = f"{found.num_compared:,} of {count(found.num_residues, 'labelled residue')}"
        lines.append(
            f"sites.tsv: {heads} with attention to {label!r} beyond that to its amino acids (q of at most 0.05); "
            f"compared: {residues} in {proteins}"
        )
    return lines
