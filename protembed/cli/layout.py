"""Sentences, facts and tables that fit the width of a terminal; numbers and paths are never broken."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

_GAP = "  "
_INDENT = "  "
# Commands; and the spaces between a number and its unit, a name and its value, a value and its interval, and within an
# interval.
_UNBROKEN = re.compile(r"`[^`]+`|(?<=\d) (?=[%\w\[])|(?<=\w) (?=[+-]?\d+\.\d)|(?<=,) (?=[-+.\de]+\])")
_NO_BREAK = "\N{NO-BREAK SPACE}"


def wrapped(sentence: str, width: int) -> str:
    r"""Break a sentence between words, and indent the lines that follow.

    A number stays with its unit and its interval. Commands and paths stay whole, so that they can be copied.

    >>> wrapped("cannot write a/long/path/emb.npy (no space)", 20)
    'cannot write\n  a/long/path/emb.npy\n  (no space)'
    >>> wrapped("the model is better: +0.01 [-0.02, +0.04] nats", 27)
    'the model is better:\n  +0.01 [-0.02, +0.04] nats'
    """
    if len(sentence) <= width:
        return sentence
    indent = " " * (len(sentence) - len(sentence.lstrip(" "))) + _INDENT
    sentence = _UNBROKEN.sub(lambda found: found[0].replace(" ", _NO_BREAK), sentence)
    filled = textwrap.fill(sentence, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace(_NO_BREAK, " ")


def join_facts(facts: Iterable[str], width: int) -> str:
    r"""Join facts by commas, and break lines only between them.

    >>> join_facts(["120 of 340", "0 min 40 s", "about 1 min left"], 24)
    '120 of 340, 0 min 40 s,\nabout 1 min left'
    """
    lines = [""]
    for fact in filter(None, facts):
        joined = f"{lines[-1]}, {fact}" if lines[-1] else fact
        if lines[-1] and len(joined) > width - 1:  # a comma may follow
            lines.append(fact)
        else:
            lines[-1] = joined
    return ",\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table on a terminal.

    Attributes:
        cells: Text of each row.
        ends: What follows each cell, such as an interval; aligned among themselves. Empty if nothing follows.
        is_text: Whether the cells are words, which are aligned to the left.
        is_optional: Whether the column is left out first if the terminal is too narrow.
    """

    name: str
    cells: Sequence[str]
    ends: Sequence[str] = ()
    is_text: bool = False
    is_optional: bool = False

    def lines(self) -> list[str]:
        """Align the name and the cells: lines of the same length."""
        width = max(map(len, self.cells), default=0)
        cells = [cell.ljust(width) if self.is_text else cell.rjust(width) for cell in self.cells]
        joined = [f"{cell} {end}".rstrip() for cell, end in zip_longest(cells, self.ends, fillvalue="")]
        width = max(map(len, [self.name, *joined]))
        if self.is_text or any(self.ends):
            return [line.ljust(width) for line in [self.name, *joined]]
        return [line.rjust(width) for line in [self.name, *joined]]

    def cell(self, row: int) -> str:
        """Return a cell and what follows it."""
        return f"{self.cells[row]} {self.ends[row] if self.ends else ''}".strip()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table on a terminal.

    Attributes:
        columns: The columns, the first of which names the rows.
    """

    columns: Sequence[Column]

    def lines(self, width: int | None = None) -> list[str]:
        """Arrange the table.

        A table that is wider than the terminal loses its optional columns. If it still is, it continues below itself,
        with the names of the rows again; and on a terminal too narrow for one column beside these names, each row
        becomes a list.

        Args:
            width: Columns of the terminal; None if lines may have any length.
        """
        first, *others = self.columns
        if width is None or _width([first, *others]) <= width:
            return _side_by_side(self.columns)
        others = [column for column in others if not column.is_optional]
        groups = list(_groups(first, others, width))
        if all(_width([first, *group]) <= width for group in groups):
            return [line for group in groups for line in _side_by_side([first, *group])]
        return list(self._lists(others))

    def _lists(self, columns: Sequence[Column]) -> Iterator[str]:
        """Yield each row as a list of its cells."""
        names = [column.name for column in columns]
        width = max(map(len, names))
        for row, title in enumerate(self.columns[0].cells):
            yield title
            yield from (f"{_INDENT}{column.name:<{width}}{_GAP}{column.cell(row)}" for column in columns)


def _width(columns: Sequence[Column]) -> int:
    return max(map(len, _side_by_side(columns)))


def _side_by_side(columns: Sequence[Column]) -> list[str]:
    rows = zip(*(column.lines() for column in columns), strict=True)
    return [_GAP.join(cells).rstrip() for cells in rows]


def _groups(first: Column, columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Yield groups of columns that fit beside the first one; a column that does not fit is a group of its own."""
    group: list[Column] = []
    for column in columns:
        if group and _width([first, *group, column]) > width:
            yield group
            group = []
        group.append(column)
    yield group
