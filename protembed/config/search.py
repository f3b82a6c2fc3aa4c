"""Options of `protembed search`. No torch."""

from typing import Literal

MetricName = Literal["cosine", "euclidean"]
