"""The files of the maps that are kept, one for each protein, written layer by layer while they are computed."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np

from protembed.analysis.attention import AttentionReader, ProteinAttention, parse_region
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.fasta import Record
from protembed.io.arrays import LayeredMaps


class KeptMaps:
    """Makes and closes the files; a context in whose end none is left open.

    Args:
        directory: of the files.
        reader: of the maps: which layers and heads.
        config: which region, and in what format and precision.
    """

    def __init__(self, directory: Path, reader: AttentionReader, config: AttentionConfig) -> None:
        self._directory, self._reader, self._config = directory, reader, config
        self._open: dict[int, LayeredMaps] = {}
        self._lock, self._is_left = Lock(), False
        self._paths: dict[str, Path] = {}

    def __enter__(self) -> "KeptMaps":
        return self

    def __exit__(self, *exception: object) -> None:
        """Abandon what an error has left open; workers that are still at it begin no other."""
        with self._lock:
            self._is_left = True
            for maps in self._open.values():
                maps.abandon()

    def file(self, row: int, record: Record) -> Callable[[], LayeredMaps] | None:
        """Prepare the file of a protein's maps, named by its row; None for a copy, which shares the first one's.

        Args:
            row: of the record, from 0.
            record: the protein.
        """
        if record.sequence in self._paths:
            return None
        path = self._directory / f"protein-{row + 1:06d}.{self._config.format}"
        self._paths[record.sequence] = path
        part = parse_region(self._config.region, len(record.sequence))
        num_residues = part.stop - part.start
        shape = (len(self._reader.layers), len(self._reader.heads), num_residues, num_residues)

        def make() -> LayeredMaps:
            with self._lock:
                if self._is_left:
                    raise InterruptedError
                if row in self._open:  # memory did not suffice for the pack, and its halves begin anew
                    self._open[row].abandon()
                self._open[row] = LayeredMaps(path, shape, self._config.dtype)
                return self._open[row]

        return make

    def finish(self, record: Record, protein: ProteinAttention) -> str:
        """Write beside a protein's maps what they are, and what was computed from them; return the file's name."""
        if protein.file is not None:
            part = parse_region(self._config.region, protein.num_residues)
            arrays = {"contacts": protein.contacts, "rollout": protein.rollout}
            kept = {name: array[part, part] for name, array in arrays.items() if array is not None}
            layers, heads = (np.array(chosen) + 1 for chosen in (self._reader.layers, self._reader.heads))
            stored = {name: array.astype(self._config.dtype) for name, array in kept.items()}
            protein.file.close({**stored, "layers": layers, "heads": heads})
        return self._paths[record.sequence].name
