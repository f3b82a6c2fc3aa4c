"""Checks of the vectors of a result, before they are used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from protembed.embedding.diagnosis import Diagnosis
from protembed.embedding.spread import MIN_VECTORS
from protembed.embedding.stored_proteins import find_repetitions, identifiers_of
from protembed.text import format_decimals, format_percent, pluralize

# With windows of 150 residues and the bundled model, 1 % of 228 proteins of Swiss-Prot agreed less.
MIN_AGREEMENT = 0.8
# In robust standard deviations. With the bundled model, 1 of 300 proteins of Swiss-Prot is farther away.
MAX_DEVIATION = 5.0
# Share of a protein's residues. Few proteins that models are trained on have more.
MAX_NONSTANDARD = 0.1
_MAX_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was checked, and what was found.

    Attributes:
        subject: What was checked, in a word or two.
        found: What was found, as a clause.
        is_passed: Whether the user has nothing to look at.
        indices: Indices of the rows to look at, as far as they are known.
    """

    subject: str
    found: str
    is_passed: bool
    indices: Sequence[int] = ()


def list_checks(diagnosis: Diagnosis) -> list[Check]:
    """List what was looked at in a result, the vectors first; where few proteins are the reason, they are named."""
    checks = list(_checks(diagnosis))
    few = {check.subject: check.indices for check in checks if 0 < len(check.indices) <= _MAX_NAMES}
    names = identifiers_of(diagnosis.result, set(chain.from_iterable(few.values()))) if few else {}
    return [
        replace(check, found=f"{check.found} ({', '.join(names[index] for index in few[check.subject])})")
        if check.subject in few
        else check
        for check in checks
    ]


def _checks(diagnosis: Diagnosis) -> Iterator[Check]:
    yield _check_numbers(diagnosis)
    if diagnosis.vectors.num_rows - diagnosis.vectors.num_not_finite >= MIN_VECTORS:
        yield _check_dimensions(diagnosis)
    if np.isfinite(diagnosis.deviations).any():
        yield _check_norms(diagnosis)
    if diagnosis.vectors.hashes is not None:
        yield _check_vectors(diagnosis)
    yield _check_windows(diagnosis)
    yield _check_sequences(diagnosis)
    yield _check_identifiers(diagnosis)
    yield _check_residues(diagnosis)
    yield _check_records(diagnosis)


def _verb(number: int, singular: str, plural: str) -> str:
    return singular if number == 1 else plural


def _check_numbers(diagnosis: Diagnosis) -> Check:
    number, indices = diagnosis.vectors.num_not_finite, np.flatnonzero(np.isnan(diagnosis.vectors.norms)).tolist()
    found = f"{pluralize(number, 'vector')} {_verb(number, 'contains', 'contain')} NaN or infinity"
    found = found if number else "all numbers are finite"
    return Check(subject="Numbers", found=found, is_passed=not number, indices=indices)


def _check_dimensions(diagnosis: Diagnosis) -> Check:
    number, dim = diagnosis.vectors.num_constant, len(diagnosis.vectors.mean)
    count = f"{number:,}" if number else "none"
    found = f"{count} of {pluralize(dim, 'dimension')} {_verb(number or 1, 'is', 'are')} constant"
    return Check(subject="Dimensions", found=found, is_passed=not number)


def _check_norms(diagnosis: Diagnosis) -> Check:
    with np.errstate(invalid="ignore"):
        indices = np.flatnonzero(np.abs(diagnosis.deviations) > MAX_DEVIATION).tolist()
    number = len(indices)
    found = f"{pluralize(number, 'protein')} {_verb(number, 'has', 'have')} a norm far from those of the others"
    found = found if number else "no norm is far from those of the others"
    return Check(subject="Norms", found=found, is_passed=not number, indices=indices)


def _check_vectors(diagnosis: Diagnosis) -> Check:
    number = diagnosis.num_sharing
    found = f"{pluralize(number, 'protein')} share their vector with a protein of another sequence"
    return Check(
        subject="Identical vectors",
        found=found if number else "different sequences have different vectors",
        is_passed=not number,
    )


def _check_windows(diagnosis: Diagnosis) -> Check:
    is_windowed, window = diagnosis.is_windowed, diagnosis.result.meta["window_residues"]
    if not is_windowed.any():
        found = f"every protein fits into the window of {window:,} residues"
        return Check(subject="Windows", found=found, is_passed=True)
    agreements = diagnosis.proteins.agreements[is_windowed]
    indices = np.flatnonzero(diagnosis.proteins.agreements < MIN_AGREEMENT).tolist()
    number, of = len(indices), pluralize(len(agreements), "protein")
    lowest = format_decimals(float(agreements.min()), 2)
    found = f"the windows of {of} longer than {window:,} residues agree to {lowest} or more"
    if number:
        limit = format_decimals(MIN_AGREEMENT, 2)
        found = f"the windows of {number:,} of {of} longer than {window:,} residues agree to less than {limit}"
    return Check(subject="Windows", found=found, is_passed=not number, indices=indices)


def _check_sequences(diagnosis: Diagnosis) -> Check:
    number = diagnosis.repeated_sequences.num_repeats
    found = f"{pluralize(number, 'protein')} {_verb(number, 'repeats', 'repeat')} the sequence of an earlier one"
    return Check(subject="Sequences", found=found if number else "no sequence occurs twice", is_passed=not number)


def _check_identifiers(diagnosis: Diagnosis) -> Check:
    number = find_repetitions(diagnosis.proteins.identifiers).num_repeats
    found = f"{pluralize(number, 'protein')} {_verb(number, 'repeats', 'repeat')} the identifier of an earlier one"
    return Check(subject="Identifiers", found=found if number else "no identifier occurs twice", is_passed=not number)


def _check_residues(diagnosis: Diagnosis) -> Check:
    counts, num_residues = diagnosis.residues.counts, diagnosis.proteins.num_residues
    shares = diagnosis.residues.num_nonstandard / np.maximum(1, num_residues)
    indices = np.flatnonzero(shares > MAX_NONSTANDARD).tolist()
    number, total = len(indices), counts.total()
    letters = ", ".join(f"{count:,} {letter}" for letter, count in sorted(counts.items()))
    is_unknown, of = diagnosis.residues.letters == "X", pluralize(int(num_residues.sum()), "residue")
    kind = "unknown (X)" if is_unknown else "not among the 20 standard amino acids"
    found = f"{total:,} of {of} {_verb(total, 'is', 'are')} {kind}"
    if not total:
        found = "no residue is unknown (X)" if is_unknown else "all residues are standard amino acids"
    if counts and not is_unknown:
        found += f": {letters}"
    if number:
        found += f", in {pluralize(number, 'protein')} more than {format_percent(MAX_NONSTANDARD)}"
    return Check(subject="Residues", found=found, is_passed=not number, indices=indices)


def _check_records(diagnosis: Diagnosis) -> Check:
    meta, found = diagnosis.result.meta, []
    window, number = meta["window_residues"], meta["num_refused"]
    num_cut = int((diagnosis.proteins.num_residues == window).sum()) if meta["long"] == "truncate" else 0
    if number:
        found.append(f"{pluralize(number, 'record')} {_verb(number, 'was', 'were')} left out")
    if num_cut:
        proteins = f"{pluralize(num_cut, 'protein')} of {window:,} residues"
        found.append(f"{proteins} may have been longer, because {_verb(num_cut, 'it was', 'they were')} cut off there")
    text = ", and ".join(found) or "no record was left out or cut off"
    return Check(subject="Records", found=text, is_passed=not found)
