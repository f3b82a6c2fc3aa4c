"""A loss as a row of bars, as high as the loss of each part of the training so far."""

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_MAX_BINS = 256


class LossCurve:
    """The losses of a training so far, in bins of equal numbers of steps.

    >>> curve = LossCurve()
    >>> for step in range(1000):
    ...     curve.add(3 - step / 1000)
    >>> curve.draw(8)
    '█▇▆▅▄▃▂▁'
    """

    def __init__(self) -> None:
        self._bins: list[float] = []
        self._steps_per_bin = 1
        self._pending: list[float] = []

    def add(self, loss: float) -> None:
        """Add the loss of a step."""
        self._pending.append(loss)
        if len(self._pending) < self._steps_per_bin:
            return
        self._bins.append(_mean(self._pending))
        self._pending.clear()
        if len(self._bins) == _MAX_BINS:
            self._bins = [_mean(self._bins[start : start + 2]) for start in range(0, _MAX_BINS, 2)]
            self._steps_per_bin *= 2

    def draw(self, width: int) -> str:
        """Draw at most so many bars, the lowest loss as the lowest bar; empty until there are two different losses."""
        number = min(width, len(self._bins))
        edges = [len(self._bins) * bar // number for bar in range(number + 1)] if number else []
        losses = [_mean(self._bins[start:end]) for start, end in zip(edges, edges[1:], strict=False)]
        lowest, highest = min(losses, default=0.0), max(losses, default=0.0)
        if highest == lowest:
            return ""
        top = len(_BARS) - 1
        return "".join(_BARS[round(top * (loss - lowest) / (highest - lowest))] for loss in losses)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
