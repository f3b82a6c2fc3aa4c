"""The page of a map: every protein as a point, with its name, its nearest proteins, and what colours it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.report.design import CLASS_COLOURS, COLOURS, scale_colours
from protembed.report.page import Card, Page, Section, Widget
from protembed.report.table import Column, Table
from protembed.search.annotations import Annotation
from protembed.search.protein_map import LENGTH, PROJECTION_NAMES, Points, ProteinMap
from protembed.text import pluralize

_SCRIPTS = ("drawing.js", "map.js", "map_picture.js", "map_controls.js")
# Coordinates are stored in so many steps, which is finer than the pixels of any screen.
_STEPS = 65_535
_NO_CODE = 255
_NUM_FAR = 10
_READING = {
    "pca": "PCA shows the two directions in which the vectors vary most, and nothing of the others.",
    "tsne": "t-SNE keeps neighbours together. The distance between groups, their size and their density mean nothing.",
    "umap": "UMAP keeps neighbours together. The distance between groups, their size and their density mean little.",
}


def make_page(protein_map: ProteinMap, metas: Sequence[Mapping[str, Any]], command: str) -> Page:
    """Make the page of a map.

    Args:
        protein_map: What is drawn.
        metas: Contents of the meta files of the results of `embed`.
        command: Command line that made it, with files named without their folders.
    """
    number, meta = len(protein_map.ids), metas[0]
    layers = ", ".join(map(str, meta["layer"]))
    summary = [f"Each point is one of {number:,} proteins; points that are close together have similar vectors."]
    if (colour := protein_map.colours[0]).name != LENGTH:
        summary.append(f"They are coloured by {colour.name}.")
    return Page(
        title=f"Map of {pluralize(number, 'protein')}",
        command="map",
        facts={
            "Command": command,
            "Model": meta["model_name"],
            "Vectors": f"one per protein ({', '.join(meta['pooling'])}), layer{'s' if len(meta['layer']) > 1 else ''} "
            f"{layers}, {meta['dim']:,} dimensions",
        },
        summary=summary,
        cards=list(_cards(protein_map)),
        sections=[
            Section(title="Map", body=[Widget(template="map.html", values=_widget(protein_map))]),
            Section(title="Neighbours", body=list(_tables(protein_map))),
        ],
        scripts=_SCRIPTS,
        data=_data(protein_map),
    )


def _cards(protein_map: ProteinMap) -> list[Card]:
    median = float(np.median(protein_map.cosines[:, 0]))
    cards = [
        Card(name="Proteins", value=f"{len(protein_map.ids):,}"),
        Card(name="Cosine of the nearest", value=f"{median:.2f}", note="median, without the mean vector"),
        Card(name="Variance in PCA", value=f"{sum(protein_map.explained):.0%}", note="of its two directions"),
    ]
    share = _share_alike(protein_map)
    if share is not None:
        name, fraction, expected = share
        note = f"has the same {name}; {expected:.0%} of proteins drawn at random do"
        cards.append(Card(name="Nearest protein", value=f"{fraction:.0%}", note=note))
    return cards


def _tables(protein_map: ProteinMap) -> Iterator[Table]:
    """List how often the nearest protein has the same class, and the proteins that are far from all others."""
    colour = protein_map.colours[0]
    if colour.classes:
        counts, alike = _count_alike(protein_map, colour)
        columns = [
            Column(name=colour.name, cells=list(colour.classes)),
            Column(name="proteins", cells=counts.tolist()),
            Column(name="nearest is alike", cells=[a / n if n else None for a, n in zip(alike, counts, strict=True)]),
        ]
        note = "The fraction of each class whose nearest protein is of the same class."
        yield Table(title="Classes", note=note, columns=columns)
    nearest = protein_map.cosines[:, 0]
    far = np.argsort(nearest, kind="stable")[:_NUM_FAR].tolist()
    columns = [
        Column(name="protein", cells=[protein_map.ids[row] for row in far]),
        Column(name="its nearest", cells=[protein_map.ids[protein_map.neighbours[row, 0]] for row in far]),
        Column(name="cosine", cells=nearest[far].tolist()),
    ]
    note = "Proteins whose nearest protein is least like them: fragments, contaminations, or families of one member."
    yield Table(title="Far from all others", note=note, columns=columns)


def _count_alike(protein_map: ProteinMap, colour: Annotation) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the proteins of each class, and those whose nearest protein is of the same class, (classes,) each."""
    codes = np.array([_NO_CODE if code is None else code for code in colour.codes])
    is_alike = codes == codes[protein_map.neighbours[:, 0]]
    number = len(colour.classes)
    counts = np.bincount(codes[codes < number], minlength=number)
    return counts, np.bincount(codes[is_alike & (codes < number)], minlength=number)


def _share_alike(protein_map: ProteinMap) -> tuple[str, float, float] | None:
    """Compute how often the nearest protein has the same class, and a random one; None without classes."""
    colour = protein_map.colours[0]
    if not colour.classes:
        return None
    counts, alike = _count_alike(protein_map, colour)
    return colour.name, float(alike.sum() / counts.sum()), float(np.square(counts / counts.sum()).sum())


def _widget(protein_map: ProteinMap) -> dict[str, Any]:
    return {
        "projections": [PROJECTION_NAMES[name] for name in protein_map.points],
        "colours": [colour.name for colour in protein_map.colours],
        "has_sequences": protein_map.sequences is not None,
    }


# Data for the scripts


def _data(protein_map: ProteinMap) -> dict[str, Any]:
    return {
        "ids": list(protein_map.ids),
        "descriptions": list(protein_map.descriptions),
        "sequences": None if protein_map.sequences is None else list(protein_map.sequences),
        "projections": [
            {"name": name, "title": protein_map.title(name), "reading": _READING[name], **_encode_points(points)}
            for name, points in protein_map.points.items()
        ],
        "colourings": [_encode_colour(colour) for colour in protein_map.colours],
        "neighbours": {
            "number": protein_map.neighbours.shape[1],
            "rows": _encode(protein_map.neighbours.astype("<u4")),
            "cosines": _encode(protein_map.cosines.astype("<f4")),
        },
        "classColours": {theme: [getattr(colour, theme) for colour in CLASS_COLOURS] for theme in ("light", "dark")},
        "colours": {
            theme: {name: getattr(each, theme) for name, each in COLOURS.items()} for theme in ("light", "dark")
        },
        "scales": {"point": scale_colours("point")},
    }


def _encode(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _encode_points(points: Points) -> dict[str, Any]:
    """Encode points as whole numbers, the same step along both axes, and how coordinates follow from them."""
    low = points.min(0).astype(np.float64)
    span = float((points.max(0) - points.min(0)).max()) or 1.0
    steps = np.round((points - low) / span * _STEPS).astype("<u2")
    return {"points": _encode(steps), "origin": low.tolist(), "step": span / _STEPS}


def _encode_colour(colour: Annotation) -> dict[str, Any]:
    if colour.values is None:
        codes = np.array([_NO_CODE if code is None else code for code in colour.codes], dtype=np.uint8)
        return {"name": colour.name, "classes": list(colour.classes), "codes": _encode(codes)}
    values = np.array([np.nan if value is None else value for value in colour.values], dtype="<f4")
    return {"name": colour.name, "classes": None, "values": _encode(values)}
