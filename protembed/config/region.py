"""Regions: which residues of each protein are used, as `--region` writes it. No torch."""

import re
from dataclasses import dataclass

from protembed.errors import ConfigError

_EXPECTED = (
    "two residues such as 1-70 are expected, numbered from 1 (-70 begins with the first residue, 20- ends with the last"
)


@dataclass(frozen=True)
class Region:
    """Residues A to B of each protein, both included.

    Attributes:
        first: The first residue, from 1.
        last: The last residue; None is the last of the protein.
    """

    first: int
    last: int | None

    @classmethod
    def parse(cls, text: str, *, words: str = "") -> "Region":
        """Read a region as the command line writes it.

        Args:
            text: The region.
            words: Words that the option takes beside a region, for the message, as in `all`.

        Raises:
            ConfigError: The text is no region.

        >>> Region.parse("1-70"), str(Region.parse("-70")), str(Region.parse("20-"))
        (Region(first=1, last=70), '1-70', '20-')
        """
        if not cls.is_valid(text):
            raise ConfigError("--region", text, f"{_EXPECTED}){words and f', or {words}'}")
        first, _, last = text.partition("-")
        return cls(int(first or 1), int(last) if last else None)

    @staticmethod
    def is_valid(text: str) -> bool:
        """Return whether a text is a region."""
        match = re.fullmatch(r"(\d{0,9})-(\d{0,9})", text, re.ASCII)
        return match is not None and text != "-" and 1 <= int(match[1] or 1) <= int(match[2] or 10**9)

    def within(self, num_residues: int) -> slice | None:
        """Return the residues of the region in a protein of this length; None where it ends before the region begins.

        >>> Region(20, 70).within(40), Region(20, 70).within(19)
        (slice(19, 40, None), None)
        """
        if self.first > num_residues:
            return None
        return slice(self.first - 1, num_residues if self.last is None else min(self.last, num_residues))

    def __str__(self) -> str:
        return f"{self.first}-{'' if self.last is None else self.last}"


def check_region(text: str, words: str) -> None:
    """Check an option that takes a region or one of several words.

    Raises:
        ConfigError: It is neither.
    """
    if text not in words.split(", "):
        Region.parse(text, words=words)


def choose_region(text: str, recorded: str | None = None) -> Region | None:
    """Return the region that an option means; None is the whole protein.

    Args:
        text: `all`, `auto`, or a region.
        recorded: What `auto` means: the region that a model was trained on; None is the whole protein.

    >>> choose_region("auto", "1-70"), choose_region("all", "1-70"), choose_region("auto")
    (Region(first=1, last=70), None, None)
    """
    chosen = recorded if text == "auto" else text
    return None if chosen is None or chosen == "all" else Region.parse(chosen)
