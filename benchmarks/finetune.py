"""Fine-tuning and its baselines on the tasks of a folder.

    python benchmarks/finetune.py TASKS [MODEL] [--only NAME …] [--json FILE]

TASKS holds `disorder_chezod.csv.gz` and the other tables named below, each with the columns `sequence`, `label` and
`split`. On three tasks the whole encoder is fine-tuned; on the others only the baselines and the frozen encoder are
measured, with at most 5,000 training rows. Metrics are those of the test split, with 95 % intervals over proteins.
"""

import argparse
import csv
import io
import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed import FinetuneConfig, FinetuneOptions, ModelConfig, finetune_model
from protembed.callbacks import Callbacks
from protembed.config.common import METRIC_NAMES
from protembed.config.finetune import FinetuneMethod
from protembed.finetuning.finetune import FinetuneSummary
from protembed.io.reading import open_input

MAX_TRAINING_ROWS = 5_000


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a task is measured, on how many rows, and published results of ESM-2 8M."""

    name: str
    method: FinetuneMethod
    published: str
    max_residues: int | None = None
    max_training_rows: int = MAX_TRAINING_ROWS
    max_test_rows: int | None = None


SCHMIRLER = "Schmirler et al. 2024, ESM-2 8M frozen → full → random initialisation"
TRIALS = (
    Trial(name="gb1_two_vs_rest", method="full", published="none: their GB1 (81.8 → 88.3 → 85.7) is another split"),
    Trial(
        name="disorder_chezod",
        method="full",
        published=f"{SCHMIRLER}: 69.7 → 71.5 → 64.9 (Spearman · 100); the same test proteins",
    ),
    Trial(
        name="meltome_clustered",
        method="full",
        max_residues=512,
        max_training_rows=1_000,
        published=f"{SCHMIRLER}: 56.4 → 58.4 → 52.7 (Spearman · 100), on a later revision of the split, whole",
    ),
    Trial(name="signalp_binary", method="frozen", published="none with these metrics"),
    Trial(
        name="stability",
        method="frozen",
        published=f"{SCHMIRLER}: 75.0 → 76.5 → 68.4 (Spearman · 100), with all 53,614 training rows",
    ),
    Trial(name="go_cc_multilabel", method="frozen", published="none: the split was made for this benchmark"),
    Trial(
        name="secondary_structure_q3",
        method="frozen",
        published=f"{SCHMIRLER}: 75.3 → 76.1 → 70.8 (accuracy · 100), with all 9,712 training rows",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=[trial.name for trial in TRIALS])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    results = []
    for trial in TRIALS:
        if trial.name in options.only:
            results.append(measure(trial, options.tasks, options.model, options.epochs))
            print(markdown(results[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(trial: Trial, tasks: Path, model: Path | None, epochs: int) -> dict[str, Any]:
    """Fine-tune on a task, and record how long each baseline took."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"{trial.name}.csv"
        sizes = write_sample(tasks / f"{trial.name}.csv.gz", table, trial)
        began, stages = time.monotonic(), list[tuple[str, float]]()
        callbacks = Callbacks(on_stage=lambda name, *_: stages.append((name, time.monotonic())))
        options = FinetuneOptions(
            finetune=FinetuneConfig(output=Path(folder) / "model", method=trial.method, epochs=epochs),
            model=ModelConfig(model=model),
        )
        summary = finetune_model(table, options, callbacks)
        ended = time.monotonic()
    ends = [start for _, start in stages[1:]] + [ended]
    seconds = {name: end - start for (name, start), end in zip(stages, ends, strict=True)}
    return {
        "task": trial.name,
        "sizes": sizes,
        "published": trial.published,
        "seconds": {"reading": stages[0][1] - began, **seconds},
        "comparison": comparison_of(summary),
        "metric": summary.task.main_metric,
    }


def write_sample(source: Path, target: Path, trial: Trial) -> dict[str, int]:
    """Copy a table, with samples of splits that are too large."""
    with open_input(source) as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8")))
    if trial.max_residues is not None:
        rows = [row for row in rows if len(row["sequence"]) <= trial.max_residues]
    max_rows = {"train": trial.max_training_rows, "test": trial.max_test_rows}
    sample = [rows[number] for number in sorted(chosen_rows([row["split"] for row in rows], max_rows))]
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(sample)
    return {split: sum(row["split"] == split for row in sample) for split in ("train", "valid", "test")}


def chosen_rows(splits: Sequence[str], max_rows: Mapping[str, int | None]) -> Iterator[int]:
    """Choose all rows of a split, or a sample of the maximum size."""
    for split in sorted(set(splits)):
        numbers = [number for number, name in enumerate(splits) if name == split]
        yield from random.Random(0).sample(numbers, min(len(numbers), max_rows.get(split) or len(numbers)))


def comparison_of(summary: FinetuneSummary) -> dict[str, Any]:
    assert summary.comparison is not None
    return {**summary.comparison.as_plain_values(), "sentences": summary.comparison.sentences()}


def markdown(result: Mapping[str, Any]) -> str:
    """Format the results of a task; the seconds of all baselines without a model are in the first line."""
    comparison, metric = result["comparison"], result["metric"]
    sizes = ", ".join(f"{number:,} {split}" for split, number in result["sizes"].items() if number)
    lines = [
        f"\n**`{result['task']}`** ({sizes}); published: {result['published']}\n",
        f"| | {METRIC_NAMES[metric]} | other metrics | {comparison['model']} less this | seconds |",
        "|---|---|---|---|---|",
    ]
    seconds = {**result["seconds"], list(comparison["predictors"])[0]: result["seconds"]["baselines"]}
    for name, metrics in comparison["predictors"].items():
        others = ", ".join(
            f"{METRIC_NAMES[key]} {format_metric(value)}"
            for key, value in metrics.items()
            if key not in (metric, "mse")
        )
        difference = format_metric(comparison["differences"].get(name), signed=True)
        duration = f"{seconds[name]:.0f}" if name in seconds else ""
        lines.append(f"| {name} | {format_metric(metrics[metric])} | {others} | {difference} | {duration} |")
    return "\n".join(lines)


def format_metric(score: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    """Format a value and its interval."""
    if score is None or score["value"] is None:
        return ""
    sign = "+" if signed else ""
    span = "" if score["low"] is None else f" [{score['low']:{sign}.3f}, {score['high']:{sign}.3f}]"
    return f"{score['value']:{sign}.3f}{span}"


if __name__ == "__main__":
    main()
