"""A fixture that several folders of tests share: a result of `embed` with vectors that the test chooses."""

import json

import numpy as np
import pytest

from protembed.data.fasta import Record
from protembed.embedding.metadata import FAILED, FAILED_HEADER, IDS, IDS_HEADER, ids_line
from protembed.embedding.stored_result import StoredResult
from protembed.io.reading import sha256_of_file
from protembed.io.result import META, sidecar
from protembed.io.writing import write_table


@pytest.fixture
def store(tmp_path):
    """Write a result of vectors that the test chooses, as `embed` would have computed them, into `tmp_path`."""

    def write(
        vectors, sequences=None, ids=None, *, name="emb", agreements=None, dtype="float32", skipped=(), **changes
    ):
        vectors = np.asarray(vectors, dtype)
        sequences = sequences or [f"MKT{'A' * number}" for number in range(len(vectors))]
        ids = ids or [f"p{number}" for number in range(1, len(sequences) + 1)]
        records = [
            Record(row=row, id=record_id, description=record_id, sequence=sequence, path="a.fasta", line=2 * row + 1)
            for row, (record_id, sequence) in enumerate(zip(ids, sequences, strict=True))
        ]
        found = agreements or [None] * len(records)
        lines = [
            ids_line(row, record, 1 if agreement is None else 2, agreement)
            for row, (record, agreement) in enumerate(zip(records, found, strict=True), start=1)
        ]
        output = tmp_path / f"{name}.npy"
        np.save(output, vectors)
        write_table(sidecar(output, IDS), IDS_HEADER, lines)
        if skipped:
            write_table(sidecar(output, FAILED), FAILED_HEADER, skipped)
        dim = vectors.shape[1]
        meta = {
            **{"model_name": "tiny", "model_revision": None, "model_sha256": "a" * 64, "input_sha256": "d" * 64},
            **{"on_illegal": "error", "long": "window", "window_residues": 50, "shard": None, "per_residue": False},
            **{"layer": [2], "pooling": ["mean"], "precision": "float32", "dtype": dtype, "format": "npy"},
            **{"slices": [{"pooling": "mean", "layer": 2, "start": 0, "stop": dim}], "dim": dim},
            **{"num_proteins": len(records), "num_residues": sum(map(len, sequences))},
            **{"num_windowed": len(found) - found.count(None), "num_refused": len(skipped)},
            **{"ids_sha256": sha256_of_file(sidecar(output, IDS)), "sha256": sha256_of_file(output)},
            **changes,
        }
        sidecar(output, META).write_text(json.dumps(meta))
        return StoredResult.read(output)

    return write
