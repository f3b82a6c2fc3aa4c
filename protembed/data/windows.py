"""Windows of long proteins, and the region that is used in place of the whole protein."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from protembed.config.common import Region, Span
from protembed.data.fasta import OnIllegal, ReadStatistics, Record
from protembed.errors import TooShortError

CHOOSE_ANOTHER_REGION = "choose another `region`"

# Neighbouring windows share at least this fraction of a window, because residues near a cut lack context.
_MIN_OVERLAP = 0.25
_INFINITE_DISTANCE = 1 << 62


def window_spans(num_residues: int, window_residues: int) -> list[Span]:
    """Lay windows over a protein: as few as overlap by at least a quarter, evenly spread, and all of full length.

    Returns:
        (start, stop) of each window in residues; a single window if the protein fits.

    >>> window_spans(10, 12), window_spans(10, 8)
    ([(0, 10)], [(0, 8), (2, 10)])
    """
    if num_residues <= window_residues:
        return [(0, num_residues)]
    stride = window_residues - int(_MIN_OVERLAP * window_residues)
    num_strides = -(-(num_residues - window_residues) // stride)
    starts = [step * (num_residues - window_residues) // num_strides for step in range(num_strides + 1)]
    return [(start, start + window_residues) for start in starts]


def most_central_window(spans: list[Span], position: int) -> Span:
    """Choose the window in which a residue, counted from 0, is farthest from a cut; the protein's ends are not cuts.

    >>> [most_central_window([(0, 8), (2, 10)], position) for position in (0, 4, 5, 9)]
    [(0, 8), (0, 8), (2, 10), (2, 10)]
    """

    def distance(span: Span) -> int:
        start, stop = span
        return min(
            position - start if start else _INFINITE_DISTANCE,
            stop - 1 - position if stop < num_residues else _INFINITE_DISTANCE,
        )

    num_residues = spans[-1][1]
    return max((span for span in spans if span[0] <= position < span[1]), key=distance)


def cut_records(
    records: Iterable[Record], region: Region | None, on_illegal: OnIllegal, statistics: ReadStatistics
) -> Iterator[Record]:
    """Cut each protein to a region; None keeps the whole protein.

    A protein that ends before the region begins is left out if `on_illegal` is `skip`. The statistics are corrected for
    what is cut off or left out, and rows count only the proteins that are yielded.

    Raises:
        TooShortError: A protein ends before the region begins, and is not to be skipped.
        FormatError: Every protein was skipped.
    """
    if region is None:
        yield from records
        return
    is_empty = True
    for record in records:
        num_residues = len(record.sequence)
        residues = region.within(num_residues)
        if residues is None:
            error = TooShortError(record.path, record.line, record.id, num_residues, region.first)
            statistics.exclude(record, error, on_illegal)
        else:
            is_empty = False
            statistics.num_residues -= num_residues - (residues.stop - residues.start)
            yield replace(record, sequence=record.sequence[residues])
    if is_empty:
        statistics.check_not_all_skipped(CHOOSE_ANOTHER_REGION)
