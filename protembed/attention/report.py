"""The first proteins of an inspection, to be looked at: figures, predicted contacts, and the page."""

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
from protembed.attention.page import AttentionPage, ShownProtein, block_size, map_resolution
from protembed.attention.sites import SiteResult
from protembed.attention.tables import column_label, page_tables, write_casp, write_contacts
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.inference.engine import Engine, InferenceJob
from protembed.io.writing import write_text
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


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """Shows proteins.

    Attributes:
        reader: of the attention, with a contact head if there is one by now.
        config: which region, and the format of the figures.
        directory: of the results.
        truths: the contacts of structures, (residues, residues), by sequence.
        sites: Lists the labelled residues of a protein, from 0, by label.
    """

    reader: AttentionExtractor
    config: AttentionConfig
    directory: Path
    truths: Mapping[str, NDArray[np.bool_]]
    sites: Callable[[Record], Mapping[str, Sequence[int]]]

    def show(
        self,
        records: Sequence[Record],
        engine: Engine,
        means: NDArray[np.float64],
        evidence: ContactEvaluation | None,
        of_sites: Mapping[str, SiteResult],
    ) -> None:
        """Read the maps of some proteins once more, now that there may be a contact head, and show them.

        Args:
            records: of the proteins, by their rows.
            engine: computes.
            means: (statistics, layer, head), of all proteins.
            evidence: what the heads know of contacts; None without structures.
            of_sites: Which heads attend to sites, by label; empty without sites.
        """
        reader = self.reader
        page = AttentionPage([layer + 1 for layer in reader.layers], [head + 1 for head in reader.heads])
        most_pixels = map_resolution(len(records), len(reader.layers) * len(reader.heads))
        for number, (record, protein) in enumerate(self._read(engine, records, most_pixels), start=1):
            shown = self._region_of(record, protein, most_pixels)
            self._draw(f"protein-{number:06d}", record, protein, shown)
            page.add(shown)
        names = [column_label(name) for name in ALL_STATISTICS]
        named = dict(zip(names, means[:, list(reader.layers)][..., list(reader.heads)], strict=True))
        for path in self._figure_paths("heads"):
            draw_heads(path, dict(zip(names, means[: len(STATISTICS)], strict=False)))
        if records:
            text = page.render(named, page_tables(means, evidence, of_sites), __version__)
            write_text(self.directory / "report.html", text)

    def _read(
        self, engine: Engine, records: Sequence[Record], most_pixels: int
    ) -> Iterator[tuple[Record, ProteinAttention]]:
        reader = replace(self.reader, computes_rollout=False)
        regions = [parse_region(self.config.region, len(record.sequence)) for record in records]
        wanted = [MapRequest(maps=True, most_pixels=most_pixels, region=region) for region in regions]

        def read(batch: Batch) -> list[ProteinAttention]:
            return reader.read(batch, [wanted[row] for row in batch.rows.tolist()])

        return engine.run(InferenceJob(compute=read), records)

    def _draw(self, name: str, record: Record, protein: ProteinAttention, shown: ShownProtein) -> None:
        layers, heads = ([number + 1 for number in chosen] for chosen in (self.reader.layers, self.reader.heads))
        for path in self._figure_paths(name):
            draw_attention(path, shown.maps, _title(shown, protein.num_residues), layers, heads)
        if protein.contacts is not None and shown.contacts is not None:
            path = self.directory / "contacts" / name
            write_contacts(path.with_suffix(".tsv"), protein.contacts)
            write_casp(path.with_suffix(".rr"), record, protein.contacts)
            for path in self._figure_paths(f"{name}-contacts"):
                draw_contacts(path, shown.contacts, shown.truth, record.id, shown.first_residue)

    def _region_of(self, record: Record, protein: ProteinAttention, most_pixels: int) -> ShownProtein:
        """Choose what is shown of a protein."""
        assert protein.maps is not None
        part = parse_region(self.config.region, protein.num_residues)
        truth = self.truths.get(record.sequence)
        return ShownProtein(
            id=record.id,
            sequence=record.sequence[part],
            maps=protein.maps.astype(
                self.config.store_dtype, copy=False
            ),  # as the arrays have it, so that the page agrees with them
            contacts=None if protein.contacts is None else protein.contacts[part, part],
            truth=None if truth is None else truth[part, part],
            first_residue=part.start + 1,
            block=block_size(part.stop - part.start, most_pixels),
            sites={
                label: [place - part.start for place in places if part.start <= place < part.stop]
                for label, places in self.sites(record).items()
            },
        )

    def _figure_paths(self, name: str) -> list[Path]:
        formats = ("png", "svg") if self.config.figure_format == "both" else (self.config.figure_format,)
        return [self.directory / "figures" / f"{name}.{suffix}" for suffix in formats]


def _title(shown: ShownProtein, num_residues: int) -> str:
    blocks = "" if shown.block == 1 else f", the highest of each {shown.block} x {shown.block}"
    return f"{shown.id} ({num_residues} residues{blocks})"
