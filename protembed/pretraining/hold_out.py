"""Which proteins of a corpus are held out for validation, where the user gives none."""

import math
from collections.abc import Iterable, Iterator, Sequence

from protembed.data.fasta import Record
from protembed.data.hashing import hash_fraction

_HELD_OUT_FRACTION = 0.05
# Records that are held in memory until one of them is held out and one is not.
_MAX_PENDING = 10_000


class HoldOut:
    """Holds out proteins for validation by the hash of the sequence, so that copies stay together.

    A protein is held out if its hash is in the lowest twentieth of all hashes. Where this holds out none or all, as it
    may among few proteins, the twentieth of them with the lowest hashes is held out, and at least one.

    Attributes:
        warnings: A sentence in the second case.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def split(self, records: Iterable[Record]) -> Iterator[tuple[Record, bool]]:
        """Yield each record in its order, and whether it is held out."""
        pending, sides, is_decided = list[tuple[Record, float]](), set[bool](), False
        for record in records:
            pending.append((record, hash_fraction(record.sequence)))
            sides.add(pending[-1][1] < _HELD_OUT_FRACTION)
            # Ten thousand records on one side are copies of few sequences, and need not stay in memory.
            is_decided = is_decided or len(sides) > 1 or len(pending) > _MAX_PENDING
            if is_decided:
                yield from ((record, value < _HELD_OUT_FRACTION) for record, value in pending)
                pending.clear()
        if pending:
            limit = self._limit_of_few(sorted({value for _, value in pending}))
            yield from ((record, value < limit) for record, value in pending)

    def _limit_of_few(self, values: Sequence[float]) -> float:
        """Return the hash below which few proteins are held out, from the hashes of the different ones, ascending."""
        if len(values) < 2:
            return _HELD_OUT_FRACTION
        number = math.ceil(_HELD_OUT_FRACTION * len(values))
        held_out = f"only {number} of {len(values):,} different proteins can be held out"
        self.warnings.append(
            f"{held_out}; such a validation says little: give more proteins, or validate on others (--valid)"
        )
        return values[number]
