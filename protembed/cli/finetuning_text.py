"""What `protembed finetune` says before and after."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from protembed.io.text import figure

_MAX_CLASSES, _MAX_LETTERS = 6, 30

if TYPE_CHECKING:
    from protembed.evaluation.intervals import Score
    from protembed.finetuning.finetune import FinetunePlan, FinetuneSummary


def finetune_plan_lines(plan: "FinetunePlan") -> list[str]:
    """Say what is going to be learned, and how the labels were read."""
    kinds = {"class": "classes", "labels": "labels"}
    what = f"{len(plan.classes)} {kinds[plan.task.answer]}: {_split_counts(plan)}" if plan.classes else "a value"
    sizes = ", ".join(f"{number:,} {split}" for split, number in plan.num_proteins.items() if number)
    measured = f", measured in {plan.num_folds} folds" if plan.num_folds > 1 else ""
    first = f"{plan.task.name} of {plan.target!r} ({what}): {sizes} proteins{measured}; {plan.method}"
    return [*plan.notes, first, plan.reading]


def _split_counts(plan: "FinetunePlan") -> str:
    """List the most frequent classes with the number of their proteins."""
    shown = [f"{name[:_MAX_LETTERS]} {number:,}" for name, number in list(plan.class_counts.items())[:_MAX_CLASSES]]
    more = len(plan.class_counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def finetune_summary_lines(summary: "FinetuneSummary", said: Collection[str] = ()) -> list[str]:
    """Show the figures of each rung of the ladder, and say what they come to; what was said before is not repeated."""
    if summary.ladder is None:
        return ["left before the end; repeat the command to go on"]
    opening = [f"{summary.output} is there already, made by the same command"] if summary.was_done else []
    rungs = summary.ladder.rungs
    names = list(summary.ladder.figures)
    table = [["", *(summary.ladder.metric_names[name] for name in names)]]
    table += [[rung, *(_spell(scores[name]) for name in names)] for rung, scores in rungs.items()]
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    lines = [
        f"{rung:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for rung, *cells in table
    ]
    last = f"{summary.output}: the model, its figures and report.html"
    return [*opening, *lines, *summary.ladder.sentences(), *(note for note in summary.notes if note not in said), last]


def _spell(score: "Score") -> str:
    if score.value is None:
        return "undefined"
    span = "" if score.low is None or score.high is None else f" [{figure(score.low)}, {figure(score.high)}]"
    return f"{figure(score.value)}{span}"
