"""Which proteins of an input are embedded: the policy for long ones, the shard and the region."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from protembed.config.common import Region
from protembed.config.embed import LongPolicy
from protembed.data.fasta import OnIllegal, ReadStatistics, Record, SkippedRecord, check_not_all_skipped, read_fasta
from protembed.data.windows import cut_records
from protembed.errors import ConfigError, TooLongError


@dataclass(frozen=True)
class Shard:
    """One of several parts of an input.

    Attributes:
        number: Index of the shard, from 1.
        total: Number of shards.
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
        on_illegal: Policy for a character that is not an amino acid.
        long_proteins: Policy for a protein longer than the window, after it was cut to the region.
        window_residues: Length of the window in residues.
        shard: Shard that is read; None for the whole input.
        region: Residues of each protein that are used; None for the whole protein.
    """

    on_illegal: OnIllegal
    long_proteins: LongPolicy
    window_residues: int
    shard: Shard | None = None
    region: Region | None = None

    def _read_all(self, paths: Iterable[Path], statistics: ReadStatistics) -> Iterator[Record]:
        records = read_fasta(paths, on_illegal=self.on_illegal, statistics=statistics)
        for record in cut_records(records, self.region, self.on_illegal, statistics):
            num_residues = len(record.sequence)
            if num_residues <= self.window_residues or self.long_proteins == "window":
                yield record
            elif self.long_proteins == "truncate":
                statistics.num_truncated += 1
                statistics.num_residues -= num_residues - self.window_residues
                yield replace(record, sequence=record.sequence[: self.window_residues])
            elif self.long_proteins == "skip":
                statistics.num_records -= 1  # the next record gets its row
                statistics.num_residues -= num_residues
                reason = f"{num_residues:,} residues are more than the window of {self.window_residues:,}"
                statistics.skipped.append(
                    SkippedRecord(id=record.id, path=record.path, line=record.line, reason=reason)
                )
            else:
                raise TooLongError(record.path, record.line, record.id, num_residues, self.window_residues)
        if not statistics.num_records:
            check_not_all_skipped(
                statistics, "choose another `long_proteins` or `on_illegal`, or a larger `window_residues`"
            )

    def _filter_shard(
        self, shard: Shard, records: Iterable[Record], num_residues: int, skipped: list[SkippedRecord]
    ) -> Iterator[Record]:
        """Yield the records of a shard; keep in `skipped` those before them, and in the last shard those at the end."""
        skipped_in_shard: list[SkippedRecord] = []
        residues_before = 0
        for record in records:
            is_in_shard = residues_before * shard.total // num_residues == shard.number - 1
            residues_before += len(record.sequence)
            skipped_in_shard += skipped if is_in_shard else []
            skipped.clear()
            if is_in_shard:
                yield record
        skipped[:0] = skipped_in_shard
        if shard.number < shard.total:
            skipped[:] = skipped_in_shard

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
        paths = list(paths)
        if self.shard is None:
            yield from self._read_all(paths, statistics)
            return
        first_pass = ReadStatistics()
        total = sum(len(record.sequence) for record in self._read_all(paths, first_pass))
        yield from self._filter_shard(self.shard, self._read_all(paths, statistics), total, statistics.skipped)
