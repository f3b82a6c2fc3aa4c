"""Which proteins of an input are embedded: the policy for long ones, the shard and the region."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from protembed.config.common import Gaps, OnIllegal, Region
from protembed.config.embed import LongPolicy
from protembed.data.fasta import ReadStatistics, Record, read_fasta
from protembed.data.windows import cut_records
from protembed.errors import ConfigError, TooLongError


@dataclass(frozen=True)
class Shard:
    """One of several parts of an input.

    Attributes:
        number: Index of the shard, from 1.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse the value of `--shard`.

        Raises:
            ConfigError: The text is not I/N with 1 <= I <= N.

        >>> Shard.parse("2/8")
        Shard(number=2, total=8)
        """
        if not cls.is_valid(text):
            raise ConfigError("shard", text, "I/N is expected, with I from 1 to N, as in 2/8")
        return cls(*map(int, text.split("/")))

    @staticmethod
    def is_valid(text: str) -> bool:
        """Return whether a text is a valid value of `--shard`."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        return match is not None and 1 <= int(match[1]) <= int(match[2])

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which proteins of an input are read, and how.

    A truncated protein is treated as a whole protein, with `<eos>` at its end, as in other tools.

    Attributes:
        long_proteins: Policy for a protein longer than the window, after it was cut to the region.
        shard: Shard that is read; None for the whole input.
        region: Residues of each protein that are used; None for the whole protein.
    """

    on_illegal: OnIllegal
    long_proteins: LongPolicy
    window_residues: int
    shard: Shard | None = None
    region: Region | None = None
    gaps: Gaps = "error"

    def _read_all(self, paths: Iterable[Path], statistics: ReadStatistics) -> Iterator[Record]:
        records = read_fasta(paths, on_illegal=self.on_illegal, gaps=self.gaps, statistics=statistics)
        for record in cut_records(records, self.region, self.on_illegal, statistics):
            num_residues = len(record.sequence)
            if num_residues <= self.window_residues or self.long_proteins == "window":
                yield record
            elif self.long_proteins == "truncate":
                statistics.num_truncated += 1
                statistics.num_residues -= num_residues - self.window_residues
                yield replace(record, sequence=record.sequence[: self.window_residues])
            else:
                error = TooLongError(record.path, record.line, record.id, num_residues, self.window_residues)
                statistics.exclude(record, error, self.long_proteins)
        if not statistics.num_records:
            statistics.check_not_all_skipped(
                "choose another `long_proteins` or `on_illegal`, or a larger `window_residues`"
            )

    def _read_shard(self, shard: Shard, paths: Sequence[Path], statistics: ReadStatistics) -> Iterator[Record]:
        """Read a shard; a skipped record is listed in the shard of the next record, at the end in the last shard."""
        total = sum(len(record.sequence) for record in self._read_all(paths, ReadStatistics()))
        residues_before, first, last = 0, 0, 0  # the first skipped record of the shard, and the first after it
        for record in self._read_all(paths, statistics):
            number = residues_before * shard.total // total + 1
            residues_before += len(record.sequence)
            first = len(statistics.skipped) if number < shard.number else first
            last = len(statistics.skipped) if number <= shard.number else last
            if number == shard.number:
                yield record
        statistics.skipped[:] = statistics.skipped[first : last if shard.number < shard.total else None]

    def read(self, paths: Iterable[Path], statistics: ReadStatistics) -> Iterator[Record]:
        """Read the selected proteins one by one; their rows count all proteins of the input that are not left out.

        Args:
            paths: Paths of the FASTA files, which are read twice if there is a shard.
            statistics: Statistics to which those of the whole input are added. Skipped records are listed only for the
                shard.

        Raises:
            FormatError: Every record was left out.
            TooLongError: A protein is longer than the window, and `long_proteins` is `error`.
            TooShortError: A protein ends before the region begins, and `on_illegal` is not `skip`.
            ProtembedError: `read_fasta` cannot read a file.
        """
        if self.shard is None:
            return self._read_all(paths, statistics)
        return self._read_shard(self.shard, list(paths), statistics)
