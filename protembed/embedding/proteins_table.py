"""The tables of a result's page: proteins that are worth a look, equal sequences, and records that were left out."""

from collections.abc import Iterator

import numpy as np

from protembed.embedding.diagnosis import Diagnosis
from protembed.embedding.metadata import FAILED
from protembed.embedding.stored_proteins import identifiers_of
from protembed.embedding.unusual import find_unusual
from protembed.report.table import Column, Table
from protembed.text import pluralize, unescape

# Identifiers of equal sequences beside the first, and records that were left out.
_MAX_NAMES, _MAX_LEFT_OUT = 5, 50
# What the columns mean.
_AGREEMENT = "Mean cosine between the vectors of a residue in two windows"
_DEVIATIONS = "Distance of the norm from the median, in robust standard deviations"
_NONSTANDARD = "Residues that are none of the 20 standard amino acids"


def unusual(diagnosis: Diagnosis) -> Iterator[Table]:
    """Make the table of the proteins that are worth a look."""
    proteins, found = diagnosis.proteins, find_unusual(diagnosis)
    indices = [protein.index for protein in found]
    names = identifiers_of(diagnosis.result, indices)
    agreements, deviations = (
        [None if np.isnan(number) else number for number in numbers[indices].tolist()]
        for numbers in (proteins.agreements, diagnosis.deviations)
    )
    nonstandard = diagnosis.residues.num_nonstandard[indices].tolist()
    windows = [
        Column(name="windows", cells=proteins.num_windows[indices].tolist()),
        Column(name="agreement", cells=agreements, decimals=2, note=_AGREEMENT),
    ]
    columns = [
        Column(name="protein", cells=[names[index] for index in indices]),
        Column(name="listed for", cells=[", ".join(protein.reasons) for protein in found]),
        Column(name="residues", cells=proteins.num_residues[indices].tolist()),
        *(windows if diagnosis.is_windowed.any() else []),
        Column(name="norm", cells=diagnosis.vectors.norms[indices].tolist(), decimals=2),
        Column(name="deviations", cells=deviations, decimals=1, note=_DEVIATIONS),
        *([Column(name="non-standard", cells=nonstandard, note=_NONSTANDARD)] if any(nonstandard) else []),
        Column(name="row", cells=[index + diagnosis.result.first_row for index in indices]),
    ]
    note = "The proteins at the ends of each scale. Being listed is no fault: every set has a longest protein."
    yield Table(title="Unusual proteins", columns=columns, note=note)


def repeated(diagnosis: Diagnosis) -> Iterator[Table]:
    """Make the table of the largest groups of proteins with the same sequence; nothing if there are none."""
    found = diagnosis.repeated_sequences
    if not found.groups:
        return
    names = identifiers_of(diagnosis.result, {index for group in found.groups for index in group[: _MAX_NAMES + 1]})
    others = [
        ", ".join(names[index] for index in group[1 : _MAX_NAMES + 1])
        + (f" and {len(group) - _MAX_NAMES - 1:,} more" if len(group) > _MAX_NAMES + 1 else "")
        for group in found.groups
    ]
    columns = [
        Column(name="protein", cells=[names[group[0]] for group in found.groups]),
        Column(name="same sequence", cells=others),
        Column(name="copies", cells=[len(group) for group in found.groups]),
        Column(name="residues", cells=[int(diagnosis.proteins.num_residues[group[0]]) for group in found.groups]),
    ]
    verb = "occurs" if found.num_groups == 1 else "occur"
    note = (
        f"{pluralize(found.num_groups, 'sequence')} of {pluralize(found.num_rows, 'protein')} {verb} more than once, "
        "the most frequent first. Copies have the same vector; a split for training and testing must not part them."
    )
    yield Table(title="Repeated sequences", columns=columns, note=note)


def left_out(diagnosis: Diagnosis) -> Iterator[Table]:
    """Make the table of the first records that were left out; nothing if there are none."""
    path, number = diagnosis.result.companion(FAILED), diagnosis.result.meta["num_refused"]
    if not number or not path.exists():
        return
    with path.open(encoding="utf-8", newline="\n") as stream:
        next(stream)
        lines = [line.rstrip("\n").split("\t") for line, _ in zip(stream, range(_MAX_LEFT_OUT), strict=False)]
    columns = [
        Column(name="record", cells=[unescape(line[2]) for line in lines]),
        Column(name="reason", cells=[unescape(line[3]) for line in lines]),
        Column(name="line", cells=[int(line[1]) for line in lines]),
        Column(name="file", cells=[unescape(line[0]) for line in lines]),
    ]
    verb = "was" if number == 1 else "were"
    note = (
        f"{pluralize(number, 'record')} {verb} left out on request; `{path.name}` beside the result lists all of them."
    )
    yield Table(title="Records that were left out", columns=columns, note=note)
