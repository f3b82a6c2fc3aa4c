"""What a map consists of: points, what can colour them, the nearest proteins of each, and the files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protembed.callbacks import Callbacks
from protembed.config.map import MapConfig, MapOptions, ProjectionName
from protembed.data.fasta import read_fasta
from protembed.device import WorkerPool
from protembed.embedding.metadata import read_proteins
from protembed.embedding.stored_result import StoredResult
from protembed.errors import ConfigError, NotFiniteError, TableError
from protembed.io.writing import write_table, write_text
from protembed.report.page import render_page
from protembed.resources import num_threads
from protembed.search.annotations import Annotation, AnnotationTable
from protembed.search.map_figure import draw_map
from protembed.search.map_page import make_page
from protembed.search.neighbours import NeighbourSearch
from protembed.search.projection import PrincipalComponents, choose_projections, project
from protembed.search.protein_map import LENGTH, PAGE, PICTURE, POINTS, Points, ProteinMap
from protembed.search.vectors import Vectors, blocks_of
from protembed.text import pluralize, unescape

_NUM_NEIGHBOURS = 5


def write_map(
    directory: Path, parts: Sequence[StoredResult], options: MapOptions, callbacks: Callbacks
) -> dict[str, Any]:
    """Compute a map, and write its files into a directory; return what its record holds beside the fingerprint."""
    config, warnings = options.map, list[str]()
    names = choose_projections(config, sum(part.num_proteins for part in parts))
    callbacks.on_start(2 + len(names))
    proteins = _read_proteins(parts)
    colours, num_labelled = _read_colours(config, proteins, warnings)
    vectors = _read_vectors(parts)
    components = PrincipalComponents(vectors)
    callbacks.on_progress(1)
    points = dict[ProjectionName, Points]()
    for name in names:
        points[name] = project(name, components, config)
        callbacks.on_progress(1)
    neighbours, cosines = _nearest(vectors, num_threads(options.compute))
    callbacks.on_progress(1)
    protein_map = ProteinMap(
        ids=proteins.ids,
        descriptions=proteins.descriptions,
        points=points,
        explained=components.explained[:2].tolist(),
        colours=colours,
        neighbours=neighbours,
        cosines=cosines,
        sequences=None if config.sequences is None else _read_sequences(config.sequences, proteins.ids, warnings),
    )
    _write_files(directory, protein_map, parts, options)
    return {
        "num_proteins": len(proteins.ids),
        "projections": names,
        "num_labelled": num_labelled,
        "colours": [colour.name for colour in colours],
        "warnings": warnings,
    }


@dataclass(frozen=True)
class _Proteins:
    ids: list[str]
    num_residues: list[int]
    descriptions: list[str]


def _read_proteins(parts: Sequence[StoredResult]) -> _Proteins:
    """Read the tables of identifiers."""
    proteins = _Proteins([], [], [])
    for part in parts:
        for protein in read_proteins(part.path):
            proteins.num_residues.append(protein.num_residues)
            proteins.ids.append(unescape(protein.cell))
            # A header begins with the identifier, which the page shows before the description.
            proteins.descriptions.append(unescape(protein.description).removeprefix(proteins.ids[-1]).strip())
    return proteins


def _read_vectors(parts: Sequence[StoredResult]) -> Vectors:
    vectors = Vectors([np.asarray(part.vectors.open()) for part in parts if part.num_proteins])
    for start, block in blocks_of(vectors):
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(1))[0])
            raise NotFiniteError(f"row {row + 1}", "the result", "float32")
    return vectors


def _read_colours(config: MapConfig, proteins: _Proteins, warnings: list[str]) -> tuple[list[Annotation], int | None]:
    """Read what can colour the points: the columns of the table, the one that the user named first; and the length."""
    length = Annotation(name=LENGTH, values=list(map(float, proteins.num_residues)))
    if config.labels is None:
        return [length], None
    table = AnnotationTable.read(config.labels, config.id)
    colours, number = list(table.annotations(proteins.ids)), table.count(proteins.ids)
    if not number:
        found = f"none of its identifiers is one of the result, such as {proteins.ids[0]!r:.60}"
        raise TableError(table.path, found, "check the column of identifiers, or name it with `id`")
    if number < len(proteins.ids):
        warnings.append(
            f"{pluralize(len(proteins.ids) - number, 'protein')} without a row in {table.path}: shown in grey"
        )
    if config.colour is not None:
        colours.sort(key=lambda colour: colour.name != config.colour)
        if not colours or colours[0].name != config.colour:
            expected = f"a column of {table.path} with classes or values is expected: {[each.name for each in colours]}"
            raise ConfigError("colour", config.colour, expected)
    return [*colours, length], number


def _nearest(vectors: Vectors, threads: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the nearest proteins of each, by the cosines of centred vectors."""
    query_rows, number = np.arange(len(vectors)), min(_NUM_NEIGHBOURS, len(vectors) - 1)
    search = NeighbourSearch(database=vectors, k=number, is_centred=True, query_rows=query_rows)
    with WorkerPool(threads) as pool:
        found = list(search.run(vectors, pool))
    return np.concatenate([each.rows for each in found]), np.concatenate([each.cosines for each in found])


def _read_sequences(path: Path, ids: Sequence[str], warnings: list[str]) -> list[str]:
    """Read the sequence of each protein; empty where the file has none of its identifier."""
    known = {record.id: record.sequence for record in read_fasta([path])}
    if num_missing := sum(record_id not in known for record_id in ids):
        warnings.append(f"{pluralize(num_missing, 'protein')} without a sequence in {path.name}")
    return [known.get(record_id, "") for record_id in ids]


def _write_files(directory: Path, protein_map: ProteinMap, parts: Sequence[StoredResult], options: MapOptions) -> None:
    page = make_page(protein_map, [part.meta for part in parts], options.command_line([part.path for part in parts]))
    write_text(directory / PAGE, render_page(page))
    header = ["id", *(f"{name}_{axis}" for name in protein_map.points for axis in (1, 2))]
    write_table(directory / POINTS, header, _rows(protein_map))
    draw_map(directory / PICTURE, protein_map)


def _rows(protein_map: ProteinMap) -> Iterator[list[object]]:
    points = list(protein_map.points.values())
    for row, record_id in enumerate(protein_map.ids):
        yield [record_id, *(f"{value:.6g}" for each in points for value in each[row].tolist())]
