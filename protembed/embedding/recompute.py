"""Computing a sample of an earlier result again, to compare it with what is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.callbacks import Callbacks
from protembed.config.common import ModelConfig
from protembed.config.embed import CheckOptions
from protembed.data.fasta import Record
from protembed.data.hashing import sequence_sha256
from protembed.data.protein_rows import dataset_name
from protembed.embedding.stored_result import StoredResult
from protembed.errors import ConfigError, ProtembedError, VerificationError
from protembed.inference.embedding import Embedder
from protembed.inference.engine import inference_engine
from protembed.inference.loading import load_for_inference
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.checkpoint import Checkpoint

# The largest difference, as a fraction of the vector's largest number, that the order of additions or the precision of
# computed and stored numbers can cause.
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


def _embedder(checkpoint: Checkpoint, result: StoredResult) -> Embedder:
    """Restore the embedder of a result, and check the slices and the dim in its meta file."""
    meta = result.meta
    try:
        embedder = Embedder.from_checkpoint(
            checkpoint,
            layer=",".join(map(str, meta["layer"])),
            pooling=",".join(meta["pooling"] or ["auto"]),
            window_residues=meta["window_residues"],
        )
    except ConfigError as error:
        raise VerificationError(result.path, f"its meta file does not fit the model ({error})") from error
    slices = embedder.slices(per_residue=meta["per_residue"])
    if (meta["slices"], meta["dim"]) != (slices, slices[-1]["stop"]):
        raise VerificationError(result.path, "the slices or the dim in its meta file do not match its layers")
    return embedder


def _dataset_names(shard: StoredResult, row: int, record: Record) -> list[str]:
    """List the names that a protein's dataset may have; earlier versions used only the hash of the sequence.

    `join` uses the hash in the table of identifiers where it does not know the other one.
    """
    of_letters = [dataset_name(letters) for letters in (record.written or record.sequence, record.sequence)]
    hashes = dict.fromkeys([*of_letters, sequence_sha256(record.sequence).hex()])
    names = [name for sha256 in hashes for name in (f"{sha256}.{row + shard.first_row}", sha256)]
    return [record.id, *names] if shard.meta.get("h5_names") == "id" else names


def _resolve_model(model: ModelConfig, meta: dict[str, Any], path: Path) -> ResolvedModel:
    """Find the model that a result was made with: the given one, or the recorded one without using the network."""
    try:
        recorded = meta["model_name"] + (f"@{meta['model_revision']}" if meta["model_revision"] else "")
        resolved = locate_model(model.model or Path(recorded), offline=model.model is None)
    except ProtembedError as error:
        if model.model is not None:
            raise
        found = f"its model {meta['model_name']}, which is needed to compute a sample again, is not available"
        raise VerificationError(path, f"{found}; name it with `model`, or pass `sample_size` 0") from error
    if resolved.sha256() != meta["model_sha256"]:
        found = f"it was made with a different model than {resolved.name} (the weights differ)"
        raise VerificationError(path, f"{found}; name it with `model`, or pass `sample_size` 0")
    return resolved


def _difference(stored: NDArray[Any], computed: NDArray[np.float32]) -> float:
    """Return the largest difference of two arrays relative to the largest number; infinite if their shapes differ."""
    if stored.shape != computed.shape:
        return float("inf")
    largest = float(np.abs(computed).max(initial=0.0)) or 1.0
    return float(np.abs(stored.astype(np.float32) - computed).max(initial=0.0)) / largest


def recompute(
    shards: Sequence[StoredResult],
    sample: Sequence[tuple[StoredResult, int, Record]],
    options: CheckOptions,
    callbacks: Callbacks,
) -> float:
    """Compute the sample again, and return the worst difference, as a fraction of a vector's largest number.

    Args:
        shards: Results that were made with the same settings.
        sample: Proteins, each with the result that holds it and its index there, from 0.
        options: Options of the command.
        callbacks: Functions that receive the residues of each recomputed protein.

    Raises:
        VerificationError: The model is another or not available, or a vector differs.
    """
    meta = shards[0].meta
    resolved = _resolve_model(options.model, meta, shards[0].path)
    checkpoint = load_for_inference(resolved, options.compute, getattr(torch, meta["precision"]), callbacks)
    embedder = _embedder(checkpoint, shards[0])
    computation = embedder.residues() if meta["per_residue"] else embedder.proteins()
    worst, tolerance = 0.0, max(_TOLERANCES[meta["precision"]], _TOLERANCES[meta["dtype"]])
    shape, layers = checkpoint.encoder.shape, checkpoint.offloaded
    with inference_engine(options.compute, checkpoint.device, shape, layers=layers) as engine:
        stored = {}
        for shard in shards:
            rows = {row: _dataset_names(shard, row, record) for result, row, record in sample if result is shard}
            stored[shard.path] = shard.vectors.read(rows)
        computed = engine.run(computation, [record for _, _, record in sample])
        for (shard, row, record), (_, embedding) in zip(sample, computed, strict=True):
            difference = _difference(stored[shard.path][row], embedding.values)
            if not difference <= tolerance:
                named = f"row {row + shard.first_row} ({record.id!r})"
                found = (
                    f"{named} differs from what {resolved.name} computes by {difference:.2g} times its largest number"
                )
                raise VerificationError(shard.path, found)
            worst = max(worst, difference)
            callbacks.on_progress(len(record.sequence))
    return worst
