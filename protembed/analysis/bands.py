"""Figures of the test proteins in groups: by length, and by how similar the nearest training protein is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from protembed.analysis.scores import Output, scores_of
from protembed.config.common import Task
from protembed.data.targets import Answer
from protembed.evaluation.intervals import Score
from protembed.evaluation.metrics import Metrics

LENGTH_EDGES = (0, 128, 256, 512, 1024, np.inf)
# Below 0.4 strangers cannot be told from distant relatives (`protembed.data.similarity`).
SIMILARITY_EDGES = (0.0, 0.4, 0.6, 0.8, 1.0, np.inf)


@dataclass(frozen=True, kw_only=True)
class Band:
    """Some of the test proteins.

    Attributes:
        low: they have at least this length or similarity.
        high: and less than this; None: no limit.
        num_proteins: how many.
        metrics: of the model on them.
        intervals: The 95 % interval of each metric; None where there is none, as with few proteins.
    """

    low: float
    high: float | None
    num_proteins: int
    metrics: Metrics
    intervals: Mapping[str, tuple[float, float] | None]


def measure_bands(
    task: Task,
    truth: Sequence[Answer],
    outputs: Sequence[Output],
    values: NDArray[np.floating] | NDArray[np.integer],
    edges: Sequence[float],
) -> list[Band]:
    """Measure groups of proteins apart; groups without proteins are left out.

    Args:
        task: what was predicted.
        truth: of each protein.
        outputs: of each protein.
        values: (proteins,), the length or similarity of each.
        edges: of the groups.
    """
    bands = []
    for low, high in pairwise(edges):
        rows = np.flatnonzero((values >= low) & (values < high)).tolist()
        if rows:
            scores = scores_of(task, [truth[row] for row in rows], [outputs[row] for row in rows])
            bands.append(
                Band(
                    low=float(low),
                    high=None if np.isinf(high) else float(high),
                    num_proteins=len(rows),
                    metrics={metric: score.value for metric, score in scores.items()},
                    intervals={metric: _span(score) for metric, score in scores.items()},
                )
            )
    return bands


def _span(score: Score) -> tuple[float, float] | None:
    return None if score.low is None or score.high is None else (score.low, score.high)
