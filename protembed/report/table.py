"""Tables of pages: cells with few digits and intervals, which are sorted and saved with all digits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from protembed.evaluation.intervals import MetricWithInterval
from protembed.text import choose_decimals, format_decimals

# Sentences; what stands between backticks is shown as code.
Prose = str
# None is an empty cell, NaN an undefined number.
Cell = str | int | float | MetricWithInterval | None
# Numbers from this size on are rounded to significant digits, even in a column with given decimals.
_LARGEST_EXACT = 1e9


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: Name in the header, and in the downloaded TSV.
        cells: Cell of each row.
        note: What the column means, which the reader can open below the table.
        digits: Significant digits of the largest number; all numbers have the same decimals.
        decimals: Decimals of all numbers; None to choose them by `digits`, and show no small number as zero.
        shade: How the numbers colour their cells: by their size, or, on a scale with two ends, by their sign too.
        shade_limit: Number, without its sign, that has the full colour; None for the largest of the column.
        best: Which number is set in bold.
    """

    name: str
    cells: Sequence[Cell]
    note: Prose = ""
    digits: int = 3
    decimals: int | None = None
    shade: Literal["", "sequential", "diverging"] = ""
    shade_limit: float | None = None
    best: Literal["", "high", "low"] = ""


class FormattedCell(NamedTuple):
    """A cell as it is shown, and as it is sorted and saved.

    Attributes:
        text: Text of the cell.
        interval: Interval below the number; empty without one.
        values: The number, or the number and both ends of its interval, with all digits; empty for text.
        shade: Percentage of the colour behind the number, from -100 to 100; None for no colour.
        is_best: Whether the number is the best of its column.
    """

    text: str
    interval: str = ""
    values: tuple[float | int | None, ...] = ()
    shade: int | None = None
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that the reader can sort, copy, and save as TSV with all digits.

    Attributes:
        note: Explanation below the title.
        row_kinds: Kind of each row: `model` tints it, `few` greys it, the empty string does neither; may be empty.
        num_fixed: First columns that stay in place while the others are scrolled.
        is_matrix: Whether the columns stand for the same things as the rows, so that the order of the rows is fixed.
    """

    title: str
    columns: Sequence[Column]
    note: Prose = ""
    row_kinds: Sequence[str] = ()
    num_fixed: int = 1
    is_matrix: bool = False

    def rows(self) -> list[tuple[str, list[FormattedCell]]]:
        """Format the cells: the kind of each row, and its cells."""
        columns = [_format_column(column) for column in self.columns]
        kinds = self.row_kinds or [""] * (len(columns[0]) if columns else 0)
        return [(kind, list(cells)) for kind, *cells in zip(kinds, *columns, strict=True)]

    def is_text(self, column: int) -> bool:
        """Return whether a column holds text, which is aligned to the left."""
        return any(isinstance(cell, str) for cell in self.columns[column].cells)


def _format_column(column: Column) -> list[FormattedCell]:
    numbers = [_number(cell) for cell in column.cells]
    known = [number for number in numbers if number is not None]
    choose = {"high": max, "low": min}.get(column.best)
    best = choose(known) if choose and len(set(known)) > 1 else None  # where all are the same, none stands out
    limit = column.shade_limit or max(map(abs, known), default=0.0)
    decimals = choose_decimals(known, column.digits) if column.decimals is None else column.decimals
    formatted = []
    for cell, number in zip(column.cells, numbers, strict=True):
        shade = round(100 * min(max(number / limit, -1), 1)) if column.shade and number is not None and limit else None
        shown = _format_cell(cell, decimals, is_exact=column.decimals is not None)
        formatted.append(shown._replace(shade=shade, is_best=number is not None and number == best))
    return formatted


def _number(cell: Cell) -> float | None:
    value = cell.value if isinstance(cell, MetricWithInterval) else cell
    return None if value is None or isinstance(value, str) or not math.isfinite(value) else float(value)


def _format_cell(cell: Cell, decimals: int, *, is_exact: bool) -> FormattedCell:
    number = _number(cell)
    if isinstance(cell, MetricWithInterval):
        interval = ""
        if cell.low is not None and cell.high is not None:
            interval = f"{format_decimals(cell.low, decimals)} to {format_decimals(cell.high, decimals)}"
        text = "undefined" if number is None else format_decimals(number, decimals)
        return FormattedCell(text, interval, (number, cell.low, cell.high))
    if cell is None or isinstance(cell, str):
        return FormattedCell(cell or "")
    if number is None:
        return FormattedCell("undefined", values=(None,))
    if isinstance(cell, int | np.integer):
        return FormattedCell(f"{int(number):,}", values=(int(number),))
    is_long = abs(number) >= _LARGEST_EXACT
    text = f"{number:z,.{decimals}f}" if is_exact and not is_long else format_decimals(number, decimals)
    return FormattedCell(text, values=(number,))
