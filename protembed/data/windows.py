"""Parts of proteins: the windows of a long one, and the region that is used in place of the whole."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from protembed.config.common import Region
from protembed.data.fasta import OnIllegal, ReadStatistics, Record, SkippedRecord, check_not_all_skipped
from protembed.errors import TooShortError

# Neighbouring windows share at least this part of a window; what is nearer to a window's edge than to the other
# window's says little.
_MIN_OVERLAP = 0.25

Span = tuple[int, int]

_INFINITE_DISTANCE = 1 << 62


def window_spans(num_residues: int, window_residues: int) -> list[Span]:
    """Lay windows over a protein: as few as overlap by a quarter at least, evenly spread, and all of full length.

    Args:
        num_residues: of the protein.
        window_residues: of a window.

    Returns:
        (start, stop) of each window in residues; one alone where the protein fits.

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
    """Choose the window of a protein in which a residue is farthest from a cut; the protein's ends are no cuts.

    Args:
        spans: of the protein's windows.
        position: of the residue, from 0.

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


CHOOSE_ANOTHER_REGION = "choose another --region"


def cut_records(
    records: Iterable[Record], region: Region | None, on_illegal: OnIllegal, statistics: ReadStatistics
) -> Iterator[Record]:
    """Cut each protein to a region.

    Args:
        records: The proteins, from `read_fasta`.
        region: Which residues; None is the whole protein.
        on_illegal: What to do about a protein that ends before the region begins: an error, or, with `skip`, leave it
            out and list it in `statistics`.
        statistics: The counts of the reading, corrected for what is cut off or left out.

    Yields:
        The parts; rows are numbered by those that are kept.

    Raises:
        TooShortError: A protein ends before the region begins, and is not to be left out.
        FormatError: All of them do, and were left out.
    """
    if region is None:
        yield from records
        return
    is_empty = True
    for record in records:
        num_residues = len(record.sequence)
        part = region.within(num_residues)
        statistics.num_residues -= num_residues
        if part is None:
            statistics.num_records -= 1  # its row is that of the next record
            skip_short(
                TooShortError(record.path, record.line, record.id, num_residues, region.first), on_illegal, statistics
            )
        else:
            is_empty = False
            statistics.num_residues += part.stop - part.start
            yield replace(record, sequence=record.sequence[part])
    if is_empty:
        check_not_all_skipped(statistics, CHOOSE_ANOTHER_REGION)


def skip_short(error: TooShortError, on_illegal: OnIllegal, statistics: ReadStatistics) -> None:
    """Leave out a protein that ends before the region begins, or raise the error."""
    if on_illegal != "skip":
        raise error
    reason = f"{error.num_residues:,} residues, and --region begins at residue {error.first:,}"
    statistics.skipped.append(SkippedRecord(id=error.record_id, path=error.path, line=error.line, reason=reason))
