"""The page about a result of `embed`: what was found in its vectors, and what to look at before they are used."""

from collections.abc import Iterator, Sequence

import numpy as np

from protembed.embedding.checks import MAX_DEVIATION, MIN_AGREEMENT, Check
from protembed.embedding.diagnosis import Diagnosis
from protembed.embedding.proteins_table import left_out, repeated, unusual
from protembed.embedding.spread import MIN_VECTORS, Spread
from protembed.embedding.stored_proteins import identifiers_of
from protembed.report.embedding_figures import (
    draw_by_length,
    draw_cosines,
    draw_lengths,
    draw_positions,
    draw_residues,
    draw_variance,
)
from protembed.report.page import Card, Element, Figure, Page, Section, Widget
from protembed.text import format_decimals, format_percent, pluralize

# If the median cosine is higher, similar and different proteins differ only in what is left up to 1.
_HIGH_COSINE = 0.3
# More names would lie on one another.
_MAX_RINGS = 5
_MAX_INPUTS = 2
_SHARES = (0.5, 0.9)


def make_page(diagnosis: Diagnosis, checks: Sequence[Check], command: str, inputs: Sequence[str]) -> Page:
    """Make the page about a result.

    Args:
        diagnosis: What was found in the result.
        checks: What was checked in it.
        command: Command line that made it, with files named without their folders.
        inputs: Names of the files that were read, without their folders.
    """
    by_urgency = sorted(checks, key=lambda check: check.is_passed)
    named = ", ".join(inputs[:_MAX_INPUTS])
    others = f" and {pluralize(len(inputs) - _MAX_INPUTS, 'other file')}" if len(inputs) > _MAX_INPUTS else ""
    sections: dict[str, list[Element]] = {
        "What was checked": [Widget(template="embedding_checks.html", values={"checks": by_urgency})],
        "Proteins to look at": [*unusual(diagnosis), *repeated(diagnosis), *left_out(diagnosis)],
    }
    if len(diagnosis.proteins):  # a shard may have none
        sections["Lengths and windows"] = list(_lengths(diagnosis))
        sections["Norms"] = list(_norms(diagnosis))
        sections["How the vectors spread"] = list(_spread(diagnosis))
    return Page(
        title=f"Vectors of {named}{others}",
        command="embed",
        facts=_facts(diagnosis, command, f"{named}{others}"),
        summary=list(_summary(diagnosis, checks)),
        cards=list(_cards(diagnosis, checks)),
        sections=[Section(title=title, body=body) for title, body in sections.items()],
        notes=list(_notes(diagnosis)),
    )


# Header


def _facts(diagnosis: Diagnosis, command: str, inputs: str) -> dict[str, str]:
    meta = diagnosis.result.meta
    layers = ", ".join(map(str, meta["layer"]))
    what = "one per residue" if diagnosis.per_residue else f"one per protein ({', '.join(meta['pooling'])})"
    facts = {
        "Command": command,
        "Model": meta["model_name"],
        "Input": f"{inputs}, {pluralize(len(diagnosis.proteins), 'protein')}",
        "Result": f"{meta['format']}, {diagnosis.vectors.num_rows:,} × {meta['dim']:,} numbers, {meta['dtype']}",
        "Vectors": f"{what}, layer{'s' if len(meta['layer']) > 1 else ''} {layers}",
    }
    if meta["shard"] is not None:
        facts["Shard"] = str(meta["shard"])
    if meta.get("region") is not None:
        facts["Region"] = f"residues {meta['region']} of each protein"
    return facts


def _summary(diagnosis: Diagnosis, checks: Sequence[Check]) -> Iterator[str]:
    if not len(diagnosis.proteins):
        yield "The result holds no protein, because the input has fewer proteins than shards."
        return
    yield _verdict(diagnosis, checks)
    yield _describe_cosines(diagnosis)


def _verdict(diagnosis: Diagnosis, checks: Sequence[Check]) -> str:
    number, dim = len(diagnosis.proteins), pluralize(len(diagnosis.vectors.mean), "number")
    whose = f"Each of the {number:,} proteins" if number > 1 else "The only protein"
    if diagnosis.per_residue:
        whose = f"Each residue of the {f'{number:,} proteins' if number > 1 else 'only protein'}"
    failed = [check.found for check in checks if not check.is_passed]
    if not failed:
        return f"{whose} has a vector of {dim}, and nothing speaks against using it."
    num_more, verb = len(failed) - 1, "is" if len(failed) == 2 else "are"
    more = f"; {pluralize(num_more, 'more finding')} {verb} listed below" if num_more else ""
    return f"{whose} has a vector of {dim}, but look at this first: {failed[0]}{more}."


def _describe_cosines(diagnosis: Diagnosis) -> str:
    spread, unit = diagnosis.spread, _unit(diagnosis)
    if spread is None:
        few = len(diagnosis.vectors.sample) < MIN_VECTORS
        return f"Fewer than {MIN_VECTORS} vectors do not show how they spread." if few else "All vectors are the same."
    raw, centred = _median_cosines(spread)
    scale = "(1: same direction, 0: nothing in common)"
    what = f"The cosine of two {unit}s drawn at random is {format_decimals(raw, 2)} {scale}"
    if raw < _HIGH_COSINE:
        return f"{what}, so they can be compared as they are."
    return f"{what}. Subtract the mean vector before you compare {unit}s: then it is {format_decimals(centred, 2)}."


def _unit(diagnosis: Diagnosis) -> str:
    return "residue" if diagnosis.per_residue else "protein"


def _median_cosines(spread: Spread) -> tuple[float, float]:
    """Return the median cosine of a pair as stored, and after the mean was subtracted; NaN if none has a cosine."""
    return (
        float(np.median(spread.cosines)) if len(spread.cosines) else float("nan"),
        float(np.median(spread.centred_cosines)) if len(spread.centred_cosines) else float("nan"),
    )


def _cards(diagnosis: Diagnosis, checks: Sequence[Check]) -> Iterator[Card]:
    proteins, spread = diagnosis.proteins, diagnosis.spread
    if not len(proteins):
        return
    median = int(np.median(proteins.num_residues))
    residues = pluralize(int(proteins.num_residues.sum()), "residue")
    yield Card(name="Proteins", value=f"{len(proteins):,}", note=f"{residues}, median length {median:,}")
    passed = [check.is_passed for check in checks]
    subjects = ", ".join(check.subject.lower() for check in checks if not check.is_passed)
    note = f"look at: {subjects}" if subjects else "nothing to look at"
    yield Card(name="Checks passed", value=f"{sum(passed)} of {len(passed)}", note=note)
    if spread is not None:
        raw, centred = (format_decimals(cosine, 2) for cosine in _median_cosines(spread))
        yield Card(
            name=f"Cosine of two {_unit(diagnosis)}s", value=raw, note=f"median; {centred} without the mean vector"
        )
    agreements = proteins.agreements[diagnosis.is_windowed]
    if len(agreements):
        note = f"median of {len(agreements):,} long proteins; lowest {format_decimals(agreements.min(), 2)}"
        note = note if len(agreements) > 1 else "in the only long protein"
        yield Card(name="Agreement of windows", value=format_decimals(float(np.median(agreements)), 2), note=note)
    elif spread is not None:
        number = pluralize(spread.num_components(_SHARES[-1]), "direction")
        dim = len(diagnosis.vectors.mean)
        yield Card(name="Dimensions", value=f"{dim:,}", note=f"90 % of the variance is in {number}")


# Sections


def _lengths(diagnosis: Diagnosis) -> Iterator[Element]:
    lengths, window = diagnosis.proteins.num_residues, diagnosis.result.meta["window_residues"]
    low, median, high = (f"{int(number):,}" for number in np.quantile(lengths, (0, 0.5, 1)))
    yield Figure(
        title="How long the proteins are",
        picture=draw_lengths(lengths, window),
        caption=(
            f"Each bar counts proteins of a length. The model computes {window:,} residues at once, its window. A "
            "longer protein is computed in overlapping windows, unless `--long-proteins` says otherwise."
        ),
        description=f"Proteins by length: from {low} to {high} residues, median {median}; the window is {window:,}.",
    )
    number = int(diagnosis.is_windowed.sum())
    if number >= MIN_VECTORS:
        yield _agreement(diagnosis)
    elif number:
        yield (
            f"{pluralize(number, 'protein')} {'was' if number == 1 else 'were'} computed in several windows; the table "
            "above shows how well the windows agree."
        )
    else:
        yield "No protein was computed in several windows, so no vector depends on where a protein was cut."


def _agreement(diagnosis: Diagnosis) -> Figure:
    proteins = diagnosis.proteins
    lowest = np.argsort(proteins.agreements, kind="stable")[:_MAX_RINGS].tolist()  # NaN comes last
    low = [index for index in lowest if proteins.agreements[index] < MIN_AGREEMENT]
    agreements, limit = proteins.agreements[diagnosis.is_windowed], format_decimals(MIN_AGREEMENT, 2)
    median, smallest = (format_decimals(float(find(agreements)), 2) for find in (np.median, np.min))
    return Figure(
        title="How well the windows of a protein agree",
        picture=draw_by_length(
            proteins.num_residues,
            proteins.agreements,
            identifiers_of(diagnosis.result, low),
            label="mean cosine of two windows",
            limits=[MIN_AGREEMENT],
        ),
        caption=(
            "Each point is a protein that was computed in several windows. Where two windows overlap, each residue has "
            "a vector from either, and the height of the point is the mean cosine of the two: 1 if it makes no "
            f"difference to a residue in which window it is. The vectors of proteins below {limit} (dashed) depend "
            "on where the protein was cut. The bars on the right count the proteins."
        ),
        description=f"Agreement of windows against length: median {median}, lowest {smallest}.",
    )


def _norms(diagnosis: Diagnosis) -> Iterator[Element]:
    (median, deviation), deviations = diagnosis.usual_norm, np.abs(diagnosis.deviations)
    if np.isnan(median):
        yield "These vectors are too few, or their norms too similar, to show which norms are unusual."
        return
    farthest = np.argsort(-deviations, kind="stable")[:_MAX_RINGS].tolist()
    far = [index for index in farthest if deviations[index] > MAX_DEVIATION]
    number = int((deviations > MAX_DEVIATION).sum())
    mean = "The norm of a protein is the mean over its residues. " if diagnosis.per_residue else ""
    yield Figure(
        title="Norms of the vectors",
        picture=draw_by_length(
            diagnosis.proteins.num_residues,
            diagnosis.vectors.norms,
            identifiers_of(diagnosis.result, far),
            label="mean norm" if diagnosis.per_residue else "norm",
            limits=[median - MAX_DEVIATION * deviation, median + MAX_DEVIATION * deviation],
        ),
        caption=(
            "The norm of a vector is its length, the square root of the sum of the squares of its numbers. "
            f"{mean}Each point is a protein; the bars on the right count them. A point far from all others is a "
            "protein that the model sees as unlike the rest: a fragment, a repeat, or a sequence that is no protein. "
            "Rings mark proteins beyond the "
            f"dashed lines, which are {MAX_DEVIATION:g} robust standard deviations from the median."
        ),
        description=(
            f"Norm against length: median {format_decimals(median, 2)}; {pluralize(number, 'protein')} beyond "
            f"{MAX_DEVIATION:g} robust standard deviations."
        ),
    )


def _spread(diagnosis: Diagnosis) -> Iterator[Element]:
    spread = diagnosis.spread
    if spread is None:
        yield _describe_cosines(diagnosis)
        return
    unit, mean = _unit(diagnosis), format_percent(spread.share_of_mean)
    raw, centred = (format_decimals(cosine, 2) for cosine in _median_cosines(spread))
    yield Figure(
        title=f"How similar two {unit}s are",
        picture=draw_cosines(spread.cosines, spread.centred_cosines),
        caption=(
            f"The cosines of all pairs of {len(spread.sampled):,} {unit}s. All vectors have a part in common, their "
            f"mean, which makes up {mean} of their squared norm and raises every cosine. Without it, the cosines of "
            "unrelated pairs lie around 0, and a high one stands out. In NumPy: `vectors - vectors.mean(axis=0)`."
        ),
        description=f"Cosines of pairs: median {raw} as stored, {centred} after the mean was subtracted.",
    )
    yield from _directions(diagnosis, spread)


def _directions(diagnosis: Diagnosis, spread: Spread) -> Iterator[Element]:
    numbers = {share: spread.num_components(share) for share in _SHARES}
    half, most = numbers.values()
    dim = len(diagnosis.vectors.mean)
    yield Figure(
        title="In how many directions they vary",
        picture=draw_variance(spread.explained, numbers),
        caption=(
            f"Principal components are the directions in which the vectors vary most, in their order. {half:,} of them "
            f"have half of the variance, and {most:,} have 90 % of it, of {dim:,} dimensions. If very few have it, the "
            "vectors say little more than a few numbers would."
        ),
        description=f"Variance by principal components: {half:,} have half of it, {most:,} have 90 %.",
    )
    yield _positions(diagnosis, spread)


def _positions(diagnosis: Diagnosis, spread: Spread) -> Figure:
    unit, letters = _unit(diagnosis), diagnosis.sampled_residues
    first, second = np.diff(spread.explained[:2], prepend=0)
    if letters is not None:
        picture = draw_residues(spread.positions, (first, second), letters)
        key = " Its letter is the amino acid: where the same letters lie together, it decides the vector."
    else:
        lengths = None if diagnosis.per_residue else diagnosis.proteins.num_residues[spread.sampled]
        picture = draw_positions(spread.positions, (first, second), lengths)
        key = "" if lengths is None else " Colours show the length: if they are sorted, the vectors follow it."
    is_whole = len(spread.sampled) == diagnosis.vectors.num_rows
    return Figure(
        title=f"{'All' if is_whole else 'A sample of the'} {unit}s at a glance",
        picture=picture,
        caption=(
            f"Each point is a {unit}, drawn along the first two principal components. Groups of points are groups of "
            f"similar {unit}s, and a point far from all others is worth a look.{key}"
        ),
        description=f"Positions along two components, with {format_percent(first + second)} of the variance.",
    )


def _notes(diagnosis: Diagnosis) -> Iterator[str]:
    sampled, num_rows = len(diagnosis.vectors.sample), diagnosis.vectors.num_rows
    if sampled < num_rows - diagnosis.vectors.num_not_finite:
        yield (
            f"Cosines and principal components are those of {sampled:,} vectors, drawn at random from {num_rows:,}. "
            "All other numbers are those of all vectors."
        )
    yield (
        "The page is made from the finished result. `protembed check` verifies that the result is complete and matches "
        "its input and its model."
    )
