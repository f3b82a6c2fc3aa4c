"""Compare trials: a line for each, and their validation losses against the minutes of their steps.

    python benchmarks/trial_curves.py OUT [--png curves.png]

OUT is the folder that trials.sh filled. Minutes are those of steps, without reading, validating and saving.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protembed.model.checkpoint import load_checkpoint
from protembed.report.figures import figure_file


class Trial(NamedTuple):
    name: str
    num_parameters: int
    reports: list[dict[str, Any]]

    @property
    def minutes(self) -> NDArray[np.float64]:
        """The minutes of steps up to each report."""
        residues = np.diff([report["residues"] for report in self.reports], prepend=0)
        return np.cumsum(residues / [report["residues_per_second"] for report in self.reports]) / 60

    @property
    def last_loss(self) -> float:
        return float(next(report["valid_loss"] for report in reversed(self.reports) if "valid_loss" in report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    trials = sorted(map(read_trial, options.folder.glob("*.run/model")), key=lambda trial: trial.last_loss)
    print("| trial | parameters | steps | residues | residues/s | minutes | validation loss |")
    print("|---|---|---|---|---|---|---|")
    for trial in trials:
        last, minutes = trial.reports[-1], trial.minutes[-1]
        print(
            f"| {trial.name} | {trial.num_parameters / 1e6:.2f} M | {last['step']:,} | {last['residues'] / 1e6:.2f} M "
            f"| {last['residues'] / minutes / 60:,.0f} | {minutes:.1f} | {trial.last_loss:.4f} |"
        )
    if options.png:
        draw(options.png, trials)


def read_trial(model: Path) -> Trial:
    lines = (model.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return Trial(model.parent.stem, load_checkpoint(model).num_parameters, [json.loads(line) for line in lines])


def draw(path: Path, trials: list[Trial]) -> None:
    with figure_file(path, width=7.5, height=5) as figure:
        axes = figure.subplots()
        for number, trial in enumerate(trials):
            points = [
                (minutes, report["valid_loss"])
                for minutes, report in zip(trial.minutes, trial.reports, strict=True)
                if "valid_loss" in report
            ]
            style = ("-", "--", ":", "-.")[number // 4 % 4]
            axes.plot(*np.array(points).T, style, marker=".", label=f"{trial.name}, {trial.last_loss:.4f}")
        axes.set(xlabel="minutes of steps", ylabel="validation loss (nats per masked residue)")
        axes.legend(loc="upper right", ncols=2)


if __name__ == "__main__":
    main()
