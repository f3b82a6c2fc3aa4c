"""What is to be embedded, and how: every decision that is made before the proteins are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from protembed.config.common import choose_region
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.data.fasta import ReadStatistics
from protembed.device import choose_device
from protembed.embedding.formats import FormatName, choose_format
from protembed.embedding.metadata import COMPANIONS, is_meta
from protembed.embedding.selection import Selection, Shard
from protembed.errors import ConfigError
from protembed.inference.applicability import InputComparison
from protembed.inference.embedding import Embedder, Embedding, vector_precision
from protembed.inference.engine import InferenceJob
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import default_path
from protembed.io.result import Result
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True, kw_only=True)
class EmbeddingJob:
    """The result, the model on the device that computes, and which proteins are read."""

    config: EmbedConfig
    result: Result
    format_name: FormatName
    resolved: ResolvedModel
    checkpoint: Checkpoint
    embedder: Embedder
    selection: Selection
    precision: torch.dtype

    @classmethod
    def prepare(cls, fasta: Sequence[Path], options: EmbedOptions) -> "EmbeddingJob":
        """Check where the result may be written, and load the model.

        Raises:
            ProtembedError: The options contradict each other or the model, or the result cannot be written.
        """
        config = options.embedding
        if config.per_residue and config.pooling != "auto":
            raise ConfigError("pooling", config.pooling, "with `per_residue` vectors are not pooled")
        shard = None if config.shard is None else Shard.parse(config.shard)
        part = "" if shard is None else f".{shard.number}-of-{shard.total}"
        suffix = config.format or ("h5" if config.per_residue else "npy")
        output = config.output or default_path(fasta[0], f"{part}.{suffix}")
        format_name = choose_format(output, config.format, per_residue=config.per_residue)
        result = Result(output, fasta, force=config.force, companions=COMPANIONS, is_record=is_meta)
        device = choose_device(options.compute)
        resolved = locate_model(options.model.model)
        checkpoint = load_checkpoint(resolved)
        window_residues = config.window_residues or checkpoint.metadata.window_residues
        embedder = Embedder.from_checkpoint(
            checkpoint, layer=config.layer, pooling=config.pooling, window_residues=window_residues
        )
        precision = vector_precision(config.precision, checkpoint, device)
        checkpoint.to(device).encoder.set_compute_dtype(precision)
        return cls(
            config=config,
            result=result,
            format_name=format_name,
            resolved=resolved,
            checkpoint=checkpoint,
            embedder=embedder,
            selection=Selection(
                on_illegal=options.reader.on_illegal,
                long_proteins=config.long_proteins,
                window_residues=window_residues,
                shard=shard,
                region=choose_region(config.region, checkpoint.metadata.region),
            ),
            precision=precision,
        )

    @property
    def region(self) -> str | None:
        """Residues of each protein that are used, as in `1-70`; None for the whole protein."""
        return None if self.selection.region is None else str(self.selection.region)

    @property
    def slices(self) -> list[dict[str, Any]]:
        """Which numbers of a vector come from which layer and pooling."""
        return self.embedder.slices(per_residue=self.config.per_residue)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        width: int = self.slices[-1]["stop"]
        return width

    @property
    def numbers_per_token(self) -> int:
        """Numbers that are held in memory for each token while its protein is computed."""
        return len(self.embedder.layers) * self.checkpoint.encoder.shape.dim

    @property
    def computation(self) -> InferenceJob[Embedding]:
        """Computation that the engine runs on each batch."""
        return self.embedder.residues() if self.config.per_residue else self.embedder.proteins()

    def compare_input(self) -> InputComparison:
        """Begin to compare the proteins with those that a fine-tuned model was trained on."""
        return InputComparison.from_checkpoint(self.checkpoint, self.selection.region)

    def warnings(self, statistics: ReadStatistics, comparison: InputComparison) -> list[str]:
        """Describe what is doubtful about the model and the input that was read.

        There is nothing to say about a model if the options specify everything that it does not record.
        """
        is_specified = self.config.layer != "auto" and self.config.window_residues is not None
        of_model = [] if is_specified else self.checkpoint.warnings
        return [*of_model, *statistics.warnings(), *comparison.warnings()]

    def fingerprint(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Collect what makes two results the same; the keys are those of the meta file, from the first version on."""
        config, embedder, selection = self.config, self.embedder, self.selection
        settings = {
            "on_illegal": selection.on_illegal,
            "long": selection.long_proteins,
            "window_residues": selection.window_residues,
            "shard": None if selection.shard is None else str(selection.shard),
            "region": self.region,
            "per_residue": config.per_residue,
            "layer": list(embedder.layers),
            "pooling": None if config.per_residue else list(embedder.poolings),
            "slices": self.slices,
            "precision": str(self.precision).removeprefix("torch."),
            "dtype": config.store_dtype,
            "format": self.format_name,
            **({"h5_names": config.h5_names} if self.format_name == "h5" else {}),
            "dim": self.dim,
        }
        return make_fingerprint(settings, self.resolved, paths if self.result.output else None)
