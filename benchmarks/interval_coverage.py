"""Coverage of the 95 % intervals of `finetune` on simulated test sets.

    python benchmarks/interval_coverage.py [--num-proteins 100] [--num-tests 2000] [--num-percentile 500]
        [--populations labels] [--json FILE]

The true value of a metric is its mean over test sets of the same size; the last column is the coverage of the value of
one set of 50,000 proteins. Each metric of each kind of task is measured, and its difference between two models on the
same proteins. The percentile interval of 1,000 resamples, which protembed used before, is measured on the first
`--num-percentile` test sets.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bootstrap import bootstrap, interval
from populations import POPULATIONS, Sampler
from protembed.evaluation import intervals
from protembed.evaluation.metrics import Measure, ResampledMetrics

POPULATION_SIZE = 50_000
DIFFERENCE = "difference in "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-proteins", type=int, default=100)
    parser.add_argument("--num-tests", type=int, default=2_000)
    parser.add_argument("--num-percentile", type=int, default=500)
    parser.add_argument("--populations", default="", help="only populations whose names contain this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = list[dict[str, Any]]()
    for number, (name, sample) in enumerate(POPULATIONS.items()):
        if options.populations in name:
            rng = np.random.default_rng([options.seed, number])
            rows += measure(name, sample, rng, options.num_proteins, options.num_tests, options.num_percentile)
            print(markdown([row for row in rows if row["population"] == name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"settings": vars(options), "rows": rows}, indent=2, default=str) + "\n")


def measure(
    name: str, sample: Sampler, rng: np.random.Generator, num_proteins: int, num_tests: int, num_percentile: int
) -> list[dict[str, Any]]:
    """Measure the coverage of the intervals of a population's metrics."""
    points, intervals_now, percentile = list[dict[str, float]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for test in range(num_tests):
        models = sample(rng, num_proteins)
        points.append({metric: float(values[0]) for metric, values in both(models, ones(num_proteins)).items()})
        intervals_now.append(jackknifed(models, points[-1], num_proteins))
        if test < num_percentile:
            resampled = with_differences([bootstrap(model, num_proteins) for model in models])
            percentile.append({metric: interval(values) for metric, values in resampled.items()})
    # The same number of additional test sets, without intervals, for the true values.
    more = [both(sample(rng, num_proteins), ones(num_proteins)) for _ in range(num_tests)]
    whole = both(sample(rng, POPULATION_SIZE), ones(POPULATION_SIZE))
    rows = []
    for metric in points[0]:
        mean = float(np.nanmean([part[metric] for part in points] + [part[metric][0] for part in more]))
        spans, before = ([part[metric] for part in parts] for parts in (intervals_now, percentile))
        row = {"population": name, "num_proteins": num_proteins, "metric": metric, "true": mean}
        row |= {f"before_{key}": value for key, value in coverage(before, mean).items()}
        row |= coverage(spans, mean) | {"of_50000": float(whole[metric][0])}
        row["holds_50000"] = coverage(spans, row["of_50000"])["holds"]
        rows.append(row)
    return rows


def ones(num: int) -> NDArray[np.float64]:
    return np.ones((1, num))


def both(models: tuple[Measure, Measure], draws: NDArray[np.float64]) -> ResampledMetrics:
    return with_differences([model(draws) for model in models])


def with_differences(metrics: list[ResampledMetrics]) -> ResampledMetrics:
    first, second = metrics
    return first | {f"{DIFFERENCE}{metric}": values - second[metric] for metric, values in first.items()}


def jackknifed(models: tuple[Measure, Measure], point: dict[str, float], num: int) -> dict[str, Any]:
    left_out = with_differences([intervals.jackknife(model, num) for model in models])
    measured = {
        metric: intervals.MetricWithInterval.from_jackknife(
            None if np.isnan(value) else value,
            left_out[metric],
            metric=metric.removeprefix(DIFFERENCE),
            is_difference=metric.startswith(DIFFERENCE),
            num_units=num,
        )
        for metric, value in point.items()
    }
    return {metric: None if found.low is None else (found.low, found.high) for metric, found in measured.items()}


def coverage(spans: list[Any], true: float) -> dict[str, float]:
    """Compute the coverage of a value, the median width, and the fraction of test sets that have an interval."""
    given = [span for span in spans if span is not None]
    is_covered = [low <= true <= high for low, high in given]
    widths = [high - low for low, high in given]
    return {
        "holds": float(np.mean(is_covered)) if is_covered else float("nan"),
        "width": float(np.median(widths)) if widths else float("nan"),
        "given": len(given) / max(1, len(spans)),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"| {row['population']} | {row['metric'].replace('_', ' ')} | {row['true']:.3f} "
        f"| {row['before_holds']:.1%} ({row['before_width']:.3f}) | {row['holds']:.1%} ({row['width']:.3f}) "
        f"| {row['given']:.1%} | {row['holds_50000']:.1%} |"
        for row in rows
    )


if __name__ == "__main__":
    main()
