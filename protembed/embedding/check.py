"""Verification: whether an earlier result of `embed` is complete and matches its input and model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.callbacks import Callbacks
from protembed.config.common import ModelConfig, choose_region
from protembed.config.embed import CheckOptions
from protembed.data.fasta import ReadStatistics, Record
from protembed.data.windows import window_spans
from protembed.device import choose_device
from protembed.embedding.formats import StoredVectors, dataset_name
from protembed.embedding.metadata import COUNTS, IDS, ids_line, read_ids_lines, read_meta
from protembed.embedding.selection import Selection, Shard
from protembed.errors import ConfigError, ProtembedError, VerificationError, reason_of
from protembed.inference.embedding import Embedder
from protembed.inference.engine import inference_engine
from protembed.io.fingerprint import differences
from protembed.io.reading import Paths, as_paths, check_inputs, follow_link, sha256_of_file, unchanged_inputs
from protembed.io.result import META, sidecar
from protembed.io.writing import seekable_inputs
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.text import format_row

# The largest difference, as a fraction of the vector's largest number, that the order of additions or the precision of
# computed and stored numbers can cause.
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """What was verified.

    Attributes:
        results: Paths of the result, or of its shards.
        num_refused: Records that were left out on request.
        num_recomputed: Proteins whose vectors were computed again.
        worst_difference: Largest difference of a recomputed vector, as a fraction of its largest number; None if no
            vector was recomputed.
    """

    results: Sequence[Path]
    num_proteins: int
    num_residues: int
    num_refused: int
    num_recomputed: int
    worst_difference: float | None


def _is_result(path: Path) -> bool:
    return path.suffix in (".npy", ".npz", ".h5") or (
        path.suffix == ".tsv" and sidecar(follow_link(path), META).exists()
    )


@dataclass(frozen=True, kw_only=True)
class _Result:
    """A result and its meta file, which are compared when it is created."""

    path: Path
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        if sha256_of_file(self.path) != self.meta["sha256"]:
            raise VerificationError(self.path, "its hash differs from the one in its meta file")
        ids = sidecar(self.path, IDS)
        if not ids.exists() or sha256_of_file(ids) != self.meta["ids_sha256"]:
            found = f"{ids.name} is missing, or its hash differs from the one in the meta file"
            raise VerificationError(self.path, found)
        try:
            num_stored = self.vectors.count()
        except (OSError, ValueError, KeyError) as error:
            raise VerificationError(self.path, f"it cannot be read ({reason_of(error)})") from error
        if num_stored != self.num_proteins:
            raise VerificationError(
                self.path, f"it contains {num_stored:,} proteins, but its meta file records {self.num_proteins:,}"
            )

    @property
    def num_proteins(self) -> int:
        return int(self.meta["num_proteins"])

    @property
    def first_row(self) -> int:
        """Number of the first row: 1, or 0 in results of earlier versions."""
        return 0 if next(read_ids_lines(self.path), "").startswith("0\t") else 1

    @property
    def vectors(self) -> StoredVectors:
        return StoredVectors(self.path, self.meta["format"], self.meta["per_residue"])


def _shared_settings(meta: dict[str, Any]) -> dict[str, Any]:
    """Return what all shards of a result have in common."""
    differing = (*COUNTS, "shard", "input_sha256", "sha256", "ids_sha256")
    return {name: value for name, value in meta.items() if name not in differing}


def _selection(shards: Sequence[_Result]) -> Selection:
    """Restore how the input was read; several results must be all shards of one, in their order."""
    first, total = shards[0].meta, len(shards)
    for number, shard in enumerate(shards, start=1):
        if total > 1 and shard.meta["shard"] != f"{number}/{total}":
            found = f"it is shard {shard.meta['shard']}, but {number}/{total} is expected here"
            raise VerificationError(shard.path, f"{found}: name all shards, in their order")
        if different := differences(_shared_settings(first), _shared_settings(shard.meta)):
            found = f"it is not a shard of the same result as {shards[0].path}: their settings differ"
            raise VerificationError(shard.path, f"{found} ({'; '.join(different)})")
    is_one_shard = total == 1 and first["shard"] is not None
    return Selection(
        on_illegal=first["on_illegal"],
        long_proteins=first["long"],
        window_residues=first["window_residues"],
        shard=Shard.parse(first["shard"]) if is_one_shard else None,
        region=choose_region(first.get("region") or "all"),
    )


def _compare_with_input(
    shards: Sequence[_Result], records: Iterator[Record], sampled: set[int]
) -> list[tuple[_Result, int, Record]]:
    """Compare each line of the table of identifiers with the input; return the sampled rows with their records."""
    lines = (
        (shard, row, line)
        for shard in shards
        for row, line in enumerate(read_ids_lines(shard.path), start=shard.first_row)
    )
    sample, num_residues = [], 0
    for index, (entry, record) in enumerate(zip_longest(lines, records)):
        if entry is None:
            found = f"it ends before {record.id!r}, line {record.line} of {record.path}"
            raise VerificationError(shards[-1].path, found)
        shard, row, line = entry
        if record is None:
            raise VerificationError(shard.path, f"row {row} and those after it are not in the input")
        num_windows = len(window_spans(len(record.sequence), shard.meta["window_residues"]))
        expected = format_row(ids_line(row, record, num_windows, None)).decode().removesuffix("\n").split("\t")
        stored = line.split("\t")
        stored[4:5] = [""]  # the agreement of the windows is not known without computing them
        if stored != expected:
            found = f"row {row}, {stored[1]!r}, has a different sequence or description than {record.id!r}"
            raise VerificationError(shard.path, f"{found}, line {record.line} of {record.path}")
        num_residues += len(record.sequence)
        if index in sampled:
            sample.append((shard, row - shard.first_row, record))
    if num_residues != sum(shard.meta["num_residues"] for shard in shards):
        raise VerificationError(
            shards[0].path, f"its rows have {num_residues:,} residues, which does not match its meta file"
        )
    return sample


def _embedder(checkpoint: Checkpoint, result: _Result) -> Embedder:
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


def _dataset_names(shard: _Result, row: int, record: Record) -> list[str]:
    """List the names that a protein's dataset may have; earlier versions used only the hash of the sequence."""
    hashes = dict.fromkeys(dataset_name(letters) for letters in (record.written or record.sequence, record.sequence))
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


def _recompute(
    shards: Sequence[_Result],
    sample: Sequence[tuple[_Result, int, Record]],
    options: CheckOptions,
    callbacks: Callbacks,
) -> float | None:
    """Compute the sample again; return the worst difference, None if the sample is empty."""
    if not sample:
        return None
    meta = shards[0].meta
    resolved = _resolve_model(options.model, meta, shards[0].path)
    checkpoint = load_checkpoint(resolved)
    embedder = _embedder(checkpoint, shards[0])
    device = choose_device(options.compute)
    checkpoint.to(device).encoder.set_compute_dtype(getattr(torch, meta["precision"]))
    computation = embedder.residues() if meta["per_residue"] else embedder.proteins()
    worst, tolerance = 0.0, max(_TOLERANCES[meta["precision"]], _TOLERANCES[meta["dtype"]])
    with inference_engine(options.compute, device, checkpoint.encoder.shape) as engine:
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


def check_embeddings(
    files: Paths, options: CheckOptions | None = None, callbacks: Callbacks | None = None
) -> CheckSummary:
    """Verify a result of `embed`, or all its shards: rows, identifiers, hashes, and a sample computed again.

    Args:
        files: Paths of the result, or of its shards in their order, followed by the FASTA files in their order; `-` is
            stdin.
        options: All options of the command; the defaults if None. The default model is the one that the result names,
            if it is available.
        callbacks: Functions that receive the residues of each recomputed protein.

    Raises:
        VerificationError: The result is incomplete, or does not match its input or model.
        ProtembedError: A file or the model cannot be read.
    """
    options, callbacks, paths = options or CheckOptions(), callbacks or Callbacks(), as_paths("files", files)
    results = [path for path in paths if _is_result(path)]
    fasta = [path for path in paths if path not in results]
    if not results or not fasta:
        expected = "a result (.npy, .npz, .h5, or a .tsv with its meta file) is expected, and then its FASTA"
        raise ConfigError("files", " ".join(map(str, paths)), expected)
    shards = [_Result(path=path, meta=read_meta(path)) for path in map(follow_link, results)]
    selection = _selection(shards)
    num_proteins = sum(shard.num_proteins for shard in shards)
    rng = np.random.default_rng(options.check.seed)
    rows = np.sort(rng.choice(num_proteins, min(options.check.sample_size, num_proteins), replace=False))
    with unchanged_inputs(), seekable_inputs(fasta) as inputs:
        statistics = ReadStatistics()
        sample = _compare_with_input(shards, selection.read(inputs, statistics), set(rows.tolist()))
        check_inputs()
    num_refused = sum(shard.meta["num_refused"] for shard in shards)
    if len(statistics.skipped) != num_refused:
        found = f"{num_refused} records were left out, but {len(statistics.skipped)} records of its input should be"
        raise VerificationError(results[0], found)
    worst = _recompute(shards, sample, options, callbacks)
    return CheckSummary(
        results=results,
        num_proteins=num_proteins,
        num_residues=sum(shard.meta["num_residues"] for shard in shards),
        num_refused=num_refused,
        num_recomputed=0 if worst is None else len(sample),
        worst_difference=worst,
    )
