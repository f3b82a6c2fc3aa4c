"""Which proteins of an input a result holds: what is done about long ones, and which shard is wanted."""

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
        number: which one, from 1.
        total: how many there are.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read a shard as the command line spells it.

        Raises:
            ConfigError: it is no I/N with 1 <= I <= N.

        >>> Shard.parse("2/8")
        Shard(number=2, total=8)
        """
        if not cls.is_valid(text):
            raise ConfigError("--shard", text, "I/N is expected, with I from 1 to N, as in 2/8")
        return cls(*map(int, text.split("/")))

    @staticmethod
    def is_valid(text: str) -> bool:
        """Tell whether a text names a shard."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        return match is not None and 1 <= int(match[1]) <= int(match[2])

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How an input is read into the proteins of a result.

    A protein that is cut off counts as the protein it then is, `<eos>` included: as other tools have it.

    Attributes:
        on_illegal: what to do about a character that is no amino acid.
        long_proteins: what to do about a protein longer than the window.
        window_residues: the window.
        shard: the part that is wanted; None is all.
        region: The residues of each protein that are used; None is the whole protein. `long_proteins` concerns what is
            left.
    """

    on_illegal: OnIllegal
    long_proteins: LongPolicy
    window_residues: int
    shard: Shard | None = None
    region: Region | None = None

    def read(self, paths: Iterable[Path], statistics: ReadStatistics) -> Iterator[Record]:
        """Read the proteins one by one; rows are numbered by those that are kept of the whole input.

        Args:
            paths: the files; read twice where a shard is wanted.
            statistics: counts what was met in the whole input; of the records left out it lists those of the shard.

        Raises:
            FormatError: every record was left out.
            TooLongError: a protein is longer than the window, and `long_proteins` is `error`.
            TooShortError: A protein ends before the region begins, and `on_illegal` is not `skip`.
            ProtembedError: as `read_fasta`.
        """
        paths = list(paths)
        if self.shard is None:
            yield from self._kept(paths, statistics)
            return
        first_pass = ReadStatistics()
        total = sum(len(record.sequence) for record in self._kept(paths, first_pass))
        yield from self._of_shard(self.shard, self._kept(paths, statistics), total, statistics.skipped)

    def _kept(self, paths: Iterable[Path], statistics: ReadStatistics) -> Iterator[Record]:
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
                statistics.num_records -= 1  # its row is that of the next record
                statistics.num_residues -= num_residues
                reason = f"{num_residues:,} residues are more than the window of {self.window_residues:,}"
                statistics.skipped.append(
                    SkippedRecord(id=record.id, path=record.path, line=record.line, reason=reason)
                )
            else:
                raise TooLongError(record.path, record.line, record.id, num_residues, self.window_residues)
        if not statistics.num_records:
            check_not_all_skipped(
                statistics, "choose another --long-proteins or --on-illegal, or a larger --window-residues"
            )

    def _of_shard(
        self, shard: Shard, records: Iterable[Record], num_residues: int, skipped: list[SkippedRecord]
    ) -> Iterator[Record]:
        """Pass the records of a shard, and leave of those skipped the ones before them; the last has the last too."""
        own: list[SkippedRecord] = []
        residues_before = 0
        for record in records:
            is_own = residues_before * shard.total // num_residues == shard.number - 1
            residues_before += len(record.sequence)
            own += skipped if is_own else []
            skipped.clear()
            if is_own:
                yield record
        skipped[:0] = own
        if shard.number < shard.total:
            skipped[:] = own
