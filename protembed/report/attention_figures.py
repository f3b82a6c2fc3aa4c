"""Figures of attention and contacts as PNG or SVG files, drawn by matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from protembed.report.figures import drawable, figure_file

_MOST_TICKS = 20


def draw_attention(
    path: Path, maps: NDArray[np.floating], title: str, layers: Sequence[int], heads: Sequence[int]
) -> None:
    """Draw the attention maps of one protein as a grid, a row per layer and a column per head.

    Args:
        path: of the PNG or SVG.
        maps: (layer, head, residues, residues).
        title: the protein.
        layers: the number of each layer, for the labels.
        heads: the number of each head, for the labels.
    """
    num_layers, num_heads = maps.shape[:2]
    with figure_file(path, width=1.1 * num_heads + 1, height=1.1 * num_layers + 1.2) as figure:
        grid: NDArray[Any] = figure.subplots(num_layers, num_heads, squeeze=False)
        for (row, column), axes in np.ndenumerate(grid):
            _draw_map(axes, maps[row, column])
            if row == 0:
                axes.set_title(f"head {heads[column]}", fontsize=7)
            if column == 0:
                axes.set_ylabel(f"layer {layers[row]}", fontsize=7)
        figure.suptitle(drawable(title), fontsize=9)


def _draw_map(axes: Axes, weights: NDArray[np.floating]) -> None:
    # Most weights are small: the square root shows them, and each map has its own scale.
    axes.imshow(np.sqrt(weights.astype(np.float32)), cmap="magma_r", vmin=0, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_contacts(
    path: Path,
    probabilities: NDArray[np.floating],
    truth: NDArray[np.bool_] | None,
    title: str,
    first_residue: int = 1,
) -> None:
    """Draw predicted contacts above the diagonal, and those of a structure below it.

    Args:
        path: of the PNG or SVG.
        probabilities: (residues, residues).
        truth: (residues, residues), or None where there is no structure.
        title: the protein.
        first_residue: The number of the first residue that is drawn.
    """
    first, last = first_residue - 0.5, first_residue + len(probabilities) - 0.5
    with figure_file(path, width=5.4, height=5.0) as figure:
        axes = figure.subplots()
        image = axes.imshow(
            np.triu(probabilities), cmap="Blues", vmin=0, interpolation="nearest", extent=(first, last, last, first)
        )
        if truth is not None:
            rows, columns = np.nonzero(np.tril(truth))
            axes.plot(columns + first_residue, rows + first_residue, "s", color="#8a1c1c", markersize=1.5)
        axes.set(xlabel="residue", ylabel="residue")
        figure.colorbar(image, shrink=0.8, label="predicted")
        figure.suptitle(drawable(title), fontsize=9)


def draw_heads(path: Path, statistics: Mapping[str, NDArray[np.floating]]) -> None:
    """Draw statistics of all heads, each as a grid with a row per layer and a column per head, both from 1.

    Args:
        path: of the PNG or SVG.
        statistics: (layer, head), by name.
    """
    num_columns = 3
    num_rows = -(-len(statistics) // num_columns)
    with figure_file(path, width=3.2 * num_columns, height=2.4 * num_rows) as figure:
        grid: NDArray[Any] = figure.subplots(num_rows, num_columns, squeeze=False)
        for axes, (name, values) in zip(grid.ravel(), statistics.items(), strict=False):
            if values.size:
                num_layers, num_heads = values.shape
                extent = (0.5, num_heads + 0.5, num_layers + 0.5, 0.5)
                image = axes.imshow(values, cmap="viridis", interpolation="nearest", aspect="auto", extent=extent)
                figure.colorbar(image, ax=axes)
                axes.set(xticks=_ticks(num_heads), yticks=_ticks(num_layers))
                axes.tick_params(labelsize=5)
            axes.set_title(name, fontsize=8)
            axes.set(xlabel="head", ylabel="layer")


def _ticks(count: int) -> range:
    """Number layers or heads from 1, all of them where there is room for their names."""
    return range(1, count + 1, -(-count // _MOST_TICKS))
