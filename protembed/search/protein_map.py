"""A map as it is drawn: the proteins, their points, and what can colour them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protembed.config.map import ProjectionName
from protembed.search.annotations import Annotation

Points = NDArray[np.float32]
PROJECTION_NAMES: Mapping[ProjectionName, str] = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}

# The files of a map.
PAGE, POINTS, PICTURE = "map.html", "points.tsv", "map.png"
# What colours the points without a table.
LENGTH = "length"


@dataclass(frozen=True, kw_only=True)
class ProteinMap:
    """The proteins of a map, in the order of their rows.

    Attributes:
        ids: Identifiers.
        descriptions: Their descriptions, empty where there is none.
        points: Points on the plane by the name of the projection, (proteins, 2) each, float32; the last is shown first.
        explained: Fractions of the variance along the first two principal components.
        colours: What can colour the points; the first is shown first.
        neighbours: Rows of the nearest proteins of each, (proteins, neighbours), int64.
        cosines: Their cosines, (proteins, neighbours), float64.
        sequences: Sequence of each protein, empty where it is not known; None if none are known.
    """

    ids: Sequence[str]
    descriptions: Sequence[str]
    points: Mapping[ProjectionName, Points]
    explained: Sequence[float]
    colours: Sequence[Annotation]
    neighbours: NDArray[np.int64]
    cosines: NDArray[np.float64]
    sequences: Sequence[str] | None = None

    @property
    def first_projection(self) -> ProjectionName:
        """The projection that is shown first, and drawn in the picture."""
        return list(self.points)[-1]

    def title(self, name: ProjectionName) -> str:
        """Name a projection, and for PCA the part of the variance that it shows."""
        if name != "pca":
            return PROJECTION_NAMES[name]
        return f"PCA, {sum(self.explained):.0%} of the variance"
