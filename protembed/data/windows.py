"""Where the windows of a protein lie that is longer than a model's window."""

# Neighbouring windows share at least this part of a window; what is nearer to a window's edge than to the other
# window's says little.
_MIN_OVERLAP = 0.25

Span = tuple[int, int]

_NO_CUT = 1 << 62


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


def most_central(spans: list[Span], position: int) -> Span:
    """Choose the window of a protein in which a residue is farthest from a cut; the protein's ends are no cuts.

    Args:
        spans: of the protein's windows.
        position: of the residue, from 0.

    >>> [most_central([(0, 8), (2, 10)], position) for position in (0, 4, 5, 9)]
    [(0, 8), (0, 8), (2, 10), (2, 10)]
    """

    def distance(span: Span) -> int:
        start, stop = span
        return min(position - start if start else _NO_CUT, stop - 1 - position if stop < num_residues else _NO_CUT)

    num_residues = spans[-1][1]
    return max((span for span in spans if span[0] <= position < span[1]), key=distance)
