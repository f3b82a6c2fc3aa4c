"""What is to be embedded, and how: every decision that is made before the model is loaded. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.config.common import choose_region
from protembed.config.embed import EmbedConfig, EmbedOptions, FormatName
from protembed.embedding.formats import choose_format
from protembed.embedding.metadata import COMPANIONS, check_report, is_meta
from protembed.embedding.selection import Selection, Shard
from protembed.errors import ConfigError
from protembed.inference.precision import resolve_precision
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import STANDARD_STREAM, default_path
from protembed.io.result import Result
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.longest import check_max_residues
from protembed.model.representation import Representation
from protembed.resources import environment_number


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """Which proteins are read, what represents them, and where the result is written."""

    options: EmbedOptions
    result: Result
    format_name: FormatName
    model: ResolvedModel
    representation: Representation
    selection: Selection

    @classmethod
    def make(cls, fasta: Sequence[Path], options: EmbedOptions) -> "EmbeddingRequest":
        """Check where the result may be written, and find the model.

        Raises:
            ProtembedError: The options contradict each other or the model, or the result cannot be written.
        """
        config = options.embedding
        if config.per_residue and config.pooling != "auto":
            raise ConfigError("pooling", config.pooling, "with `per_residue` vectors are not pooled")
        shard, is_process = None if config.shard is None else Shard.parse(config.shard), False
        if shard is None and (num_processes := environment_number("WORLD_SIZE", 1)) > 1:
            shard, is_process = Shard(environment_number("RANK", 0) + 1, num_processes), True  # as torchrun started it
        part = "" if shard is None else f".{shard.number}-of-{shard.total}"
        suffix = config.format or ("h5" if config.per_residue else "npy")
        output = config.output or default_path(fasta[0], f"{part}.{suffix}")
        if is_process and config.output is not None and config.output != STANDARD_STREAM:
            output = config.output.with_suffix(f"{part}{config.output.suffix}")
        format_name = choose_format(output, config.format, per_residue=config.per_residue)
        if config.report:
            check_report(output)
        result = Result(output, fasta, force=config.force, companions=COMPANIONS, is_record=is_meta)
        model = locate_model(options.model.model)
        return cls(
            options=options,
            result=result,
            format_name=format_name,
            model=model,
            representation=Representation.choose(
                model.shape, model.metadata, layer=config.layer, pooling=config.pooling
            ),
            selection=Selection(
                on_illegal=options.reader.on_illegal,
                gaps=options.reader.gaps,
                long_proteins=config.long_proteins,
                window_residues=check_max_residues(
                    model.shape, "window_residues", config.window_residues or model.metadata.window_residues
                ),
                shard=shard,
                region=choose_region(config.region, model.metadata.region),
            ),
        )

    @property
    def config(self) -> EmbedConfig:
        """The options of the embedding."""
        return self.options.embedding

    @property
    def region(self) -> str | None:
        """Residues of each protein that are used, as in `1-70`; None for the whole protein."""
        return None if self.selection.region is None else str(self.selection.region)

    @property
    def slices(self) -> list[dict[str, Any]]:
        """Which numbers of a vector come from which layer and pooling."""
        return self.representation.slices(per_residue=self.config.per_residue)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        width: int = self.slices[-1]["stop"]
        return width

    def precision(self) -> str:
        """Name the precision of the matrix products, as `resolve_precision` does.

        Raises:
            ConfigError: The requested device is not available.
        """
        is_finetuned = self.model.metadata.target is not None
        return resolve_precision(self.config.precision, self.result, self.options.compute, is_finetuned=is_finetuned)

    def fingerprint(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Collect what makes two results the same; the keys are those of the meta file, from the first version on."""
        config, representation, selection = self.config, self.representation, self.selection
        settings = {
            "on_illegal": selection.on_illegal,
            "gaps": selection.gaps,
            "long": selection.long_proteins,
            "window_residues": selection.window_residues,
            "shard": None if selection.shard is None else str(selection.shard),
            "region": self.region,
            "per_residue": config.per_residue,
            "layer": list(representation.layers),
            "pooling": None if config.per_residue else list(representation.poolings),
            "slices": self.slices,
            "precision": None,
            "dtype": config.store_dtype,
            "format": self.format_name,
            **({"h5_names": config.h5_names} if self.format_name == "h5" else {}),
            "dim": self.dim,
        }
        fingerprint = make_fingerprint(self.options, settings, self.model, paths if self.result.output else None)
        # After the input was read, because a GPU can decide this, and torch, which finds it, takes seconds to import.
        return {**fingerprint, "precision": self.precision()}
