"""The report of an inspection: figures, predicted contacts and the page of the first proteins."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from protembed._version import __version__
from protembed.attention.contact_predictors import ContactEvaluation
from protembed.attention.maps import (
    ALL_STATISTICS,
    STATISTICS,
    AttentionExtractor,
    MapRequest,
    ProteinAttention,
    parse_region,
)
from protembed.attention.page import AttentionPage, DisplayedProtein, block_size, map_resolution
from protembed.attention.sites import SiteResult
from protembed.attention.tables import column_label, page_tables, write_casp, write_contacts
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.inference.engine import Engine, InferenceJob
from protembed.io.writing import write_text
from protembed.report.figures import drawable, figure_file

_MAX_TICKS = 20


def draw_attention(
    path: Path, maps: NDArray[np.floating], title: str, layers: Sequence[int], heads: Sequence[int]
) -> None:
    """Draw the attention maps of one protein as a grid, a row per layer and a column per head.

    Args:
        path: PNG or SVG file to write.
        maps: Attention maps, (layer, head, residues, residues).
        title: Title of the figure.
        layers: Number of each layer, for the labels.
        heads: Number of each head, for the labels.
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
    # Most weights are small: the square root makes them visible, and each map is scaled separately.
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
        path: PNG or SVG file to write.
        probabilities: Predicted contact probabilities, (residues, residues).
        truth: Contacts of the structure, (residues, residues), bool; None without a structure.
        title: Title of the figure.
        first_residue: Number of the first residue that is drawn.
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
        path: PNG or SVG file to write.
        statistics: Values of each statistic by name, (layer, head).
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
    """Choose the layers or heads to number, from 1: all of them where there is room."""
    return range(1, count + 1, -(-count // _MAX_TICKS))


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """Writes the figures, the predicted contacts and the page.

    Attributes:
        extractor: Extractor of the attention, with a contact head if there is one.
        config: Options of the region and the format of the figures.
        directory: Directory of the results.
        contact_maps: Contacts of structures by sequence, (residues, residues), bool.
        sites: Function that lists the labelled residues of a protein by label, from 0.
    """

    extractor: AttentionExtractor
    config: AttentionConfig
    directory: Path
    contact_maps: Mapping[str, NDArray[np.bool_]]
    sites: Callable[[Record], Mapping[str, Sequence[int]]]

    def write(
        self,
        records: Sequence[Record],
        engine: Engine,
        means: NDArray[np.float64],
        evaluation: ContactEvaluation | None,
        site_results: Mapping[str, SiteResult],
    ) -> None:
        """Extract the maps of the displayed proteins once more, now with any fitted contact head, and write the report.

        Args:
            records: Displayed proteins, in the order of the input.
            engine: Engine for the computation.
            means: Means over all proteins, (statistics, layer, head), float64.
            evaluation: Evaluation of heads on contacts; None without structures.
            site_results: Tests of heads on sites by label; empty without sites.
        """
        extractor = self.extractor
        page = AttentionPage([layer + 1 for layer in extractor.layers], [head + 1 for head in extractor.heads])
        max_pixels = map_resolution(len(records), len(extractor.layers) * len(extractor.heads))
        for number, (record, protein) in enumerate(self._extract(engine, records, max_pixels), start=1):
            displayed = self._displayed_region(record, protein, max_pixels)
            self._draw(f"protein-{number:06d}", record, protein, displayed)
            page.add(displayed)
        names = [column_label(name) for name in ALL_STATISTICS]
        named = dict(zip(names, means[:, list(extractor.layers)][..., list(extractor.heads)], strict=True))
        for path in self._figure_paths("heads"):
            draw_heads(path, dict(zip(names, means[: len(STATISTICS)], strict=False)))
        if records:
            text = page.render(named, page_tables(means, evaluation, site_results), __version__)
            write_text(self.directory / "report.html", text)

    def _extract(
        self, engine: Engine, records: Sequence[Record], max_pixels: int
    ) -> Iterator[tuple[Record, ProteinAttention]]:
        extractor = replace(self.extractor, computes_rollout=False)
        regions = [parse_region(self.config.region, len(record.sequence)) for record in records]
        requests = [MapRequest(maps=True, max_pixels=max_pixels, region=region) for region in regions]

        def extract(batch: Batch) -> list[ProteinAttention]:
            return extractor.extract(batch, [requests[row] for row in batch.rows.tolist()])

        return engine.run(InferenceJob(compute=extract), records)

    def _draw(self, name: str, record: Record, protein: ProteinAttention, displayed: DisplayedProtein) -> None:
        layers, heads = ([number + 1 for number in chosen] for chosen in (self.extractor.layers, self.extractor.heads))
        for path in self._figure_paths(name):
            draw_attention(path, displayed.maps, _title(displayed, protein.num_residues), layers, heads)
        if protein.contacts is not None and displayed.contacts is not None:
            path = self.directory / "contacts" / name
            write_contacts(path.with_suffix(".tsv"), protein.contacts)
            write_casp(path.with_suffix(".rr"), record, protein.contacts)
            for path in self._figure_paths(f"{name}-contacts"):
                draw_contacts(path, displayed.contacts, displayed.truth, record.id, displayed.first_residue)

    def _displayed_region(self, record: Record, protein: ProteinAttention, max_pixels: int) -> DisplayedProtein:
        """Cut the displayed region out of a protein's results."""
        assert protein.maps is not None
        part = parse_region(self.config.region, protein.num_residues)
        truth = self.contact_maps.get(record.sequence)
        return DisplayedProtein(
            id=record.id,
            sequence=record.sequence[part],
            # The precision of the saved arrays, so that the page agrees with them.
            maps=protein.maps.astype(self.config.store_dtype, copy=False),
            contacts=None if protein.contacts is None else protein.contacts[part, part],
            truth=None if truth is None else truth[part, part],
            first_residue=part.start + 1,
            block=block_size(part.stop - part.start, max_pixels),
            sites={
                label: [residue - part.start for residue in residues if part.start <= residue < part.stop]
                for label, residues in self.sites(record).items()
            },
        )

    def _figure_paths(self, name: str) -> list[Path]:
        formats = ("png", "svg") if self.config.figure_format == "both" else (self.config.figure_format,)
        return [self.directory / "figures" / f"{name}.{suffix}" for suffix in formats]


def _title(displayed: DisplayedProtein, num_residues: int) -> str:
    size = displayed.block
    blocks = "" if size == 1 else f", maximum of each {size} x {size} block"
    return f"{displayed.id} ({num_residues} residues{blocks})"
