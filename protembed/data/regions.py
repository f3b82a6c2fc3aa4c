"""Parts of proteins: the residues of a region, in place of the whole protein.

A part is used as a protein of its own: no residue beyond it has any influence on it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from protembed.config.common import Region
from protembed.data.fasta import OnIllegal, ReadReport, Record, RefusedRecord, refuse_nothing_left
from protembed.errors import TooShortError

CHOOSE_ANOTHER_REGION = "choose another --region"


def cut_records(
    records: Iterable[Record], region: Region | None, on_illegal: OnIllegal, report: ReadReport
) -> Iterator[Record]:
    """Cut each protein to a region.

    Args:
        records: The proteins, from `read_fasta`.
        region: Which residues; None is the whole protein.
        on_illegal: What to do about a protein that ends before the region begins: an error, or, with `skip`, leave it
            out and list it in `report`.
        report: The counts of the reading, corrected for what is cut off or left out.

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
        report.num_residues -= num_residues
        if part is None:
            report.num_records -= 1  # its row is that of the next record
            skip_short(
                TooShortError(record.path, record.line, record.id, num_residues, region.first), on_illegal, report
            )
        else:
            is_empty = False
            report.num_residues += part.stop - part.start
            yield replace(record, sequence=record.sequence[part])
    if is_empty:
        refuse_nothing_left(report, CHOOSE_ANOTHER_REGION)


def skip_short(error: TooShortError, on_illegal: OnIllegal, report: ReadReport) -> None:
    """Leave out a protein that ends before the region begins, or raise the error."""
    if on_illegal != "skip":
        raise error
    reason = f"{error.num_residues:,} residues, and --region begins at residue {error.first:,}"
    report.refused.append(RefusedRecord(id=error.record_id, path=error.path, line=error.line, reason=reason))
