"""Attention: from FASTA and a model to maps per layer and head, statistics of heads, and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import protembed
from protembed.analysis.attention import (
    STATISTICS,
    AttentionReader,
    HeadStatistics,
    ProteinAttention,
    parse_numbers,
)
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.shared import ComputeConfig, ModelConfig, ReaderConfig
from protembed.data.arrays import write_arrays
from protembed.data.batching import Batch
from protembed.data.fasta import ReadReport, Record, read_fasta
from protembed.device import choose_device, worker_pool
from protembed.errors import OutputExistsError
from protembed.files import atomic_directory, atomic_file, write_json
from protembed.inference.engine import Computation, Engine
from protembed.inputs import default_path
from protembed.model.catalog import find_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.report.figures import draw_attention
from protembed.text import table_line

# A protein's maps are many times larger than its vectors: few are held at a time.
_TOKENS_PER_CHUNK = 4096
_STATISTICS = "heads.tsv"


@dataclass(frozen=True, kw_only=True)
class AttentionSummary:
    """What was looked at.

    Attributes:
        output: the directory of the results.
        num_proteins: proteins that the statistics cover.
        num_maps: proteins whose maps were kept.
        num_refused: records left out on request.
        has_contacts: whether the model's contact head is fitted, and contacts are among the arrays.
        warnings: what the user should know about the input.
    """

    output: Path
    num_proteins: int
    num_maps: int
    num_refused: int
    has_contacts: bool
    warnings: Sequence[str]


def inspect_attention(
    fasta: Sequence[Path],
    model: ModelConfig,
    attention: AttentionConfig,
    *,
    reader: ReaderConfig | None = None,
    compute: ComputeConfig | None = None,
    on_protein: Callable[[int], None] = lambda num_residues: None,
) -> AttentionSummary:
    """Keep attention maps per layer and head, summarise each head over all proteins, and draw the maps.

    The directory holds `heads.tsv`, `proteins.tsv`, and for the first proteins `maps/protein-000001.npz` with
    `attention` (layer, head, residues, residues), `layers`, `heads`, and `contacts` where the model can predict them,
    and `figures/protein-000001.png`.

    Args:
        fasta: the files; `-` is stdin.
        model: which model.
        attention: where to, and which layers, heads and proteins.
        reader: how to read; the defaults if None.
        compute: where to compute; the defaults if None.
        on_protein: told the residues of each protein that is finished.

    Raises:
        OutputExistsError: the directory stands there already.
        ProtembedError: the input, the model or the output does not allow it; see `protembed.errors`.
    """
    reader, compute = reader or ReaderConfig(), compute or ComputeConfig()
    output = attention.output or default_path(fasta[0], ".attention")
    if output.exists() and not attention.force:
        raise OutputExistsError(output, "may be another result")
    checkpoint = load_checkpoint(find_model(model.model))
    device = choose_device(compute)
    checkpoint.to(device)
    attention_reader = _reader(checkpoint, attention)

    def read(batch: Batch) -> list[ProteinAttention]:
        return attention_reader.read(batch, is_kept=(batch.rows < attention.num_maps).tolist())

    report, statistics = ReadReport(), HeadStatistics()
    records = read_fasta(fasta, on_illegal=reader.on_illegal, report=report)
    with worker_pool(compute, device) as pool, atomic_directory(output, marker=_STATISTICS) as directory:
        engine = Engine(pool=pool, tokens_per_chunk=_TOKENS_PER_CHUNK)
        with atomic_file(directory / "proteins.tsv") as proteins:
            proteins.write(table_line(["row", "id", "residues", "maps", "figure"]))
            for record, protein in engine.run(Computation(whole=read), records):
                statistics.add(protein)
                names = _keep(record, protein, attention_reader, attention, directory)
                proteins.write(table_line([record.row, record.id, protein.num_residues, *names]))
                on_protein(protein.num_residues)
        _write_statistics(directory / _STATISTICS, statistics)
        write_json(directory / "meta.json", _facts(checkpoint, attention_reader, report))
    return AttentionSummary(
        output=output,
        num_proteins=report.num_records,
        num_maps=min(report.num_records, attention.num_maps),
        num_refused=len(report.refused),
        has_contacts=checkpoint.contact_head.is_fitted,
        warnings=report.warnings(),
    )


def _reader(checkpoint: Checkpoint, attention: AttentionConfig) -> AttentionReader:
    shape = checkpoint.encoder.shape
    return AttentionReader(
        encoder=checkpoint.encoder,
        layers=parse_numbers("--layers", attention.layers, shape.num_layers),
        heads=parse_numbers("--heads", attention.heads, shape.num_heads),
        contact_head=checkpoint.contact_head.cpu() if checkpoint.contact_head.is_fitted else None,
    )


def _keep(
    record: Record, protein: ProteinAttention, reader: AttentionReader, config: AttentionConfig, directory: Path
) -> list[str]:
    """Write the maps and the figure of one protein, named by its row; return their names, empty if none are kept."""
    # A copy of an early protein, further down, shares its maps.
    if protein.maps is None or record.row >= config.num_maps:
        return ["", ""]
    layers, heads = [layer + 1 for layer in reader.layers], [head + 1 for head in reader.heads]
    maps, figure = f"maps/protein-{record.row + 1:06d}.npz", f"figures/protein-{record.row + 1:06d}.png"
    arrays = {"attention": protein.maps.astype(config.dtype), "layers": np.array(layers), "heads": np.array(heads)}
    if protein.contacts is not None:
        arrays["contacts"] = protein.contacts.astype(config.dtype)
    write_arrays(directory / maps, arrays)
    draw_attention(directory / figure, protein.maps, f"{record.id} ({protein.num_residues} residues)", layers, heads)
    return [maps, figure]


def _facts(checkpoint: Checkpoint, reader: AttentionReader, report: ReadReport) -> dict[str, Any]:
    return {
        "protembed_version": protembed.__version__,
        "model_sha256": checkpoint.sha256(),
        "layers": [layer + 1 for layer in reader.layers],
        "heads": [head + 1 for head in reader.heads],
        "num_proteins": report.num_records,
        "num_residues": report.num_residues,
        "refused": [{"id": record.id, "line": record.line, "reason": record.reason} for record in report.refused],
    }


def _write_statistics(path: Path, statistics: HeadStatistics) -> None:
    means = statistics.means()  # (statistics, layer, head)
    with atomic_file(path) as stream:
        stream.write(table_line(["layer", "head", *STATISTICS]))
        for layer, head in np.ndindex(means.shape[1:]):
            values = [f"{value:.6g}" for value in means[:, layer, head].tolist()]
            stream.write(table_line([str(layer + 1), str(head + 1), *values]))
