"""Options of `protembed pretrain`, but for the optimiser's. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.config.common import GPU_MICRO_BATCH_TOKENS, MICRO_BATCH_TOKENS, PrecisionName
from protembed.config.model_sizes import DEFAULT_SIZE, SizeName
from protembed.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Config):
    """The run."""

    output: Path | None = option(
        None, "The run directory; <name of the first FASTA>.run by default.", flags=("-o", "--output")
    )
    size: SizeName | None = option(
        None, f"The encoder's shape: layers and rounded number of parameters; {DEFAULT_SIZE} by default."
    )
    init_from: Path | None = option(
        None, "Start from the weights of this model, not random ones.", flags=("--init-from",)
    )
    weight_init: Literal["gaussian", "uniform"] = option(
        "gaussian", "How weight matrices begin, both with standard deviation 0.02."
    )
    valid: list[Path] = option(
        [],
        "Proteins to validate on; may be repeated, the first decides which model is best. By default a twentieth of "
        "the data, held out by sequence hash.",
    )
    compare_model: Path | None = option(None, "Measure this model (as for --model) too, on the same hidden residues.")
    clusters: Path | None = option(
        None, "A table (TSV or CSV) of accessions and clusters: draw a cluster first, and then one of its members."
    )
    cluster_column: str | None = option(
        None, "The column of --clusters with the clusters' names; cluster50 by default."
    )
    steps: int | None = option(None, "Optimiser steps; by default planned from the data, about ten passes.", min=1)
    max_minutes: float | None = option(
        None, "Plan as many steps as fit into this time: measured before step 0, and corrected on the way.", min=0.1
    )
    validate_every: int | None = option(None, "Steps between validations; five in a run by default.", min=1)
    patience: int | None = option(None, "End after so many validations in a row without a lower loss.", min=1)
    save_every: int | None = option(None, "Steps between checkpoints; twenty in a run by default.", min=1)
    save_every_minutes: float = option(
        15.0, "Minutes after which a checkpoint is due, however few steps it had.", min=0.01
    )
    keep_checkpoints: int = option(2, "How many of the newest checkpoints are kept; the best model always is.", min=1)
    precision: PrecisionName = option(
        "auto", "Numbers of the matrix products in training; auto is bfloat16 on GPUs that have it, else float32."
    )
    dry_run: bool = option(False, "Print the plan, with time and memory measured for a few seconds, and leave.")
    seed: int = option(0, "The seed of initialisation, order, crops and masks.", min=0)
    force: bool = option(False, "Begin anew in an existing run directory.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.max_minutes is not None:
            raise ConfigError("--max-minutes", self.max_minutes, "--steps was given too: give one of the two")
        if self.size is not None and self.init_from is not None:
            raise ConfigError("--size", self.size, "--init-from was given too, and its model has a shape of its own")
        if self.cluster_column is not None and self.clusters is None:
            raise ConfigError("--cluster-column", self.cluster_column, "there is no table: give --clusters too")


@dataclass(frozen=True, kw_only=True)
class BatchConfig(Config):
    """Batches."""

    batch_tokens: int = option(4096, "Tokens of an optimiser step, at most.", min=64)
    micro_batch_tokens: int | None = option(
        None,
        f"Tokens computed at once, about; gradients are summed. By default {MICRO_BATCH_TOKENS:,} on a CPU, for each "
        f"thread, and {GPU_MICRO_BATCH_TOKENS:,} on a GPU.",
        min=64,
    )
    crop_residues: int = option(256, "Longer proteins are cropped to this many residues, anew each time.", min=8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tokens < 2 * (self.crop_residues + 2):
            expected = f"two crops of {self.crop_residues} residues with <cls> and <eos> must fit"
            raise ConfigError("--batch-tokens", self.batch_tokens, expected)


@dataclass(frozen=True, kw_only=True)
class MaskingConfig(Config):
    """What the model has to guess."""

    mask_rate: float = option(0.15, "Share of the standard residues of a crop that become targets.", min=0.01, max=0.9)
    random_rate: float = option(0.10, "Share of the targets that show a random residue, not <mask>.", min=0.0, max=1.0)
    keep_rate: float = option(0.10, "Share of the targets that show the residue itself.", min=0.0, max=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_rate + self.keep_rate > 1:
            raise ConfigError("--keep-rate", self.keep_rate, "together with --random-rate it must not exceed 1")
