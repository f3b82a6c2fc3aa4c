"""The header of a table among its first rows: below titles, notes and blank rows, as in spreadsheets."""

from collections.abc import Callable, Sequence

# A header is expected among this many rows.
NUM_FIRST_ROWS = 30


def find_header(rows: Sequence[Sequence[str]], is_known: Callable[[str], bool]) -> int:
    """Find the header: the row with the most known names, if it is wider than all above; else the first below titles.

    Of rows with equally many, one with several cells is preferred to one with a first cell alone, such as a title
    "Variants".

    Args:
        rows: First rows of a table, as stripped cells.
        is_known: Function that returns whether a cell is the name of a column that the caller expects.

    Returns:
        The index of the header; of the first row that is not blank if there is no title.

    >>> find_header([["Table S1: stability", ""], ["", ""], ["Protein", "Tm"], ["p1", "52.1"]], lambda cell: False)
    2
    >>> find_header([["by", "A. Author", ""], ["id", "sequence", "Tm"], ["p1", "MKT", "52.1"]], "sequence".__eq__)
    1
    """
    widths = [sum(map(bool, row)) for row in rows]
    filled = [index for index, width in enumerate(widths) if width]
    num_known = [len({cell for cell in row if is_known(cell)}) for row in rows]
    best = max(filled, key=lambda index: (num_known[index], any(rows[index][1:])), default=0)
    if filled and num_known[best] and all(width < widths[best] for width in widths[:best]):
        return best
    for index, following in zip(filled, filled[1:], strict=False):
        if not _is_title(rows[index], widths[following]):
            break
        if widths[following] > 1:
            return following
    return filled[0] if filled else 0


def _is_title(row: Sequence[str], next_width: int) -> bool:
    """Return whether a row is a title: its first cell alone, of several words, or beside empty ones above a wider row.

    A name beside an empty first cell is that of a column beside the index of pandas.
    """
    first, *others = row
    return first != "" and not any(others) and (len(first.split()) > 1 or bool(others) and next_width > 1)
