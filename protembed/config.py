"""Every option, once: its name with its unit, type, default, range and help.

The command line is made from these dataclasses, runs store them, the core receives them. No torch here: `--help` reads
this module.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from protembed.errors import ConfigError

OptimizerName = Literal["muon", "adamw", "sgd"]
PrecisionName = Literal["auto", "float32", "bfloat16"]
ScheduleName = Literal["stable", "cosine"]
TaskName = Literal["auto", "classification", "regression"]
FinetuneMethod = Literal["full", "frozen"]

# What one thread computes at once: a thousand tokens stay in a core's cache, and a step gives work to several cores.
TOKENS_PER_PACK = 1024
# A GPU wants much more at once; 16,384 tokens of the 650M shape fit into 40 GB.
TOKENS_PER_GPU_PACK = 16_384
# In the box: protembed/bundled/.
DEFAULT_MODEL = "protembed_t4_1M"
# Of ESM-2's alphabet; a test compares it with data/alphabet.py, which needs numpy.
_NUM_TOKENS = 33


def option(
    default: Any, help: str, *, flags: tuple[str, ...] = (), min: float | None = None, max: float | None = None
) -> Any:
    """Declare a field of a config, and with it an option of the command line.

    Args:
        default: the default; None means absent or planned from the data, as `help` says.
        help: one sentence, with the unit.
        flags: the option's names where they are not the field's name with dashes.
        min: the smallest value allowed.
        max: the largest value allowed.
    """
    metadata = {"help": help, "flags": flags, "min": min, "max": max}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The base of all configs: checks ranges and choices when it is made."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if value is None:
                continue
            name = flag_name(spec)
            hint = hints[spec.name]
            choices = next((get_args(part) for part in (hint, *get_args(hint)) if get_origin(part) is Literal), ())
            if choices and value not in choices:
                raise ConfigError(name, value, f"one of {', '.join(choices)} is expected")
            low, high = spec.metadata["min"], spec.metadata["max"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise ConfigError(name, value, f"a value from {_bound(low)} to {_bound(high)} is expected")


def flag_name(spec: "dataclasses.Field[Any]") -> str:
    """Spell a field as its long option: `mask_rate` is `--mask-rate`."""
    flags: tuple[str, ...] = spec.metadata["flags"]
    return flags[-1] if flags else "--" + spec.name.replace("_", "-")


def as_plain_values(config: Config) -> Mapping[str, Any]:
    """Turn a config into what JSON can hold, without what does not shape the result: paths and `--force`."""
    return {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if not isinstance(value, Path | list) and name not in ("force", "output")
    }


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class ReaderConfig(Config):
    """Reading."""

    on_illegal: Literal["error", "mask", "skip"] = option(
        "error", "What to do about a character that is no amino acid: stop, read it as X, or leave the record out."
    )


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(Config):
    """Computing."""

    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "Where to compute; auto takes a GPU if there is one."
    )
    threads: int | None = option(
        None,
        "CPU threads; by default SLURM_CPUS_PER_TASK, OMP_NUM_THREADS, or the cores this process may use.",
        min=1,
    )


@dataclass(frozen=True, kw_only=True)
class ShowConfig(Config):
    """Showing."""

    quiet: bool = option(False, "Print nothing but warnings and errors.")
    json: bool = option(False, "Print a machine-readable summary on stdout (on stderr when stdout carries data).")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The model."""

    model: Path | None = option(
        None,
        "A model directory (ESM-2 in Hugging Face layout), a protembed run, or the name of a bundled model; "
        f"{DEFAULT_MODEL} by default. See `protembed models`.",
        flags=("-m", "--model"),
    )


# Pretraining


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The shape of an encoder; ESM-2 fixes everything else, the feed-forward width is four times `dim`."""

    num_layers: int
    dim: int
    num_heads: int

    @property
    def num_parameters(self) -> int:
        """Trained numbers of the encoder and its masked-LM head."""
        layer = 12 * self.dim**2 + 13 * self.dim
        lm_head = self.dim**2 + 3 * self.dim + _NUM_TOKENS
        return self.num_layers * layer + (_NUM_TOKENS + 2) * self.dim + lm_head


SIZES = {
    # For CPUs: heads of 32 and 64 take down to half the time of ESM-2's small models' heads of 16.
    "t4_1M": EncoderShape(num_layers=4, dim=160, num_heads=5),
    "t6_3M": EncoderShape(num_layers=6, dim=192, num_heads=3),
    # Source: Lin et al. 2023, table S1, and the published checkpoints.
    "t6_8M": EncoderShape(num_layers=6, dim=320, num_heads=20),
    "t12_35M": EncoderShape(num_layers=12, dim=480, num_heads=20),
    "t30_150M": EncoderShape(num_layers=30, dim=640, num_heads=20),
    "t33_650M": EncoderShape(num_layers=33, dim=1280, num_heads=20),
    "t36_3B": EncoderShape(num_layers=36, dim=2560, num_heads=40),
    "t48_15B": EncoderShape(num_layers=48, dim=5120, num_heads=40),
}
DEFAULT_SIZE = "t6_8M"
SizeName = Literal["t4_1M", "t6_3M", "t6_8M", "t12_35M", "t30_150M", "t33_650M", "t36_3B", "t48_15B"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Config):
    """The run."""

    output: Path | None = option(
        None, "The run directory; <name of the first FASTA>.run by default.", flags=("-o", "--output")
    )
    size: SizeName | None = option(
        None, f"The encoder's shape: layers and rounded number of parameters; {DEFAULT_SIZE} by default."
    )
    from_model: Path | None = option(None, "Start from the weights of this model, not random ones.", flags=("--from",))
    weight_init: Literal["gaussian", "uniform"] = option(
        "gaussian", "How weight matrices begin, both with standard deviation 0.02."
    )
    valid: list[Path] = option(
        [],
        "Proteins to validate on; may be repeated, the first decides which model is best. By default a twentieth of "
        "the data, held out by sequence hash.",
    )
    compare: Path | None = option(None, "Measure this model (as for --model) too, on the same hidden residues.")
    clusters: Path | None = option(
        None, "A table (TSV) of accessions and clusters: draw a cluster first, and then one of its members."
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
    save_minutes: float = option(15.0, "Minutes after which a checkpoint is due, however few steps it had.", min=0.01)
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
        if self.size is not None and self.from_model is not None:
            raise ConfigError("--size", self.size, "--from was given too, and its model has a shape of its own")
        if self.cluster_column is not None and self.clusters is None:
            raise ConfigError("--cluster-column", self.cluster_column, "there is no table: give --clusters too")


@dataclass(frozen=True, kw_only=True)
class BatchConfig(Config):
    """Batches."""

    tokens_per_batch: int = option(4096, "Tokens of an optimiser step, at most.", min=64)
    tokens_per_pack: int | None = option(
        None,
        f"Tokens computed at once, about; gradients are summed. By default {TOKENS_PER_PACK:,} on a CPU, for each "
        f"thread, and {TOKENS_PER_GPU_PACK:,} on a GPU.",
        min=64,
    )
    crop_residues: int = option(256, "Longer proteins are cropped to this many residues, anew each time.", min=8)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens_per_batch < 2 * (self.crop_residues + 2):
            expected = f"two crops of {self.crop_residues} residues with <cls> and <eos> must fit"
            raise ConfigError("--tokens-per-batch", self.tokens_per_batch, expected)


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


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """The optimiser."""

    optimizer: OptimizerName | None = option(
        None,
        "muon (AdamW for what is no matrix of a layer), adamw, or sgd: w - lr * gradient as it stands, no clipping. "
        "By default muon when pretraining, adamw when finetuning.",
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate; by default 0.003 for muon, 0.001 for adamw, 0.1 for sgd (finetuning: 0.0003 for muon and "
        "adamw).",
        min=0.0,
    )
    schedule: ScheduleName = option(
        "stable", "The rate after the warm-up: stable with a linear fall at the end, or a falling cosine."
    )
    warmup_steps: int | None = option(None, "Steps of linear warm-up; a twentieth of all steps by default.", min=0)
    decay_share: float = option(
        0.25, "The last share of the steps, over which the rate falls to zero (stable).", min=0.0, max=1.0
    )
    weight_decay: float = option(0.01, "Decay of weight matrices (muon, adamw).", min=0.0)
    clip_norm: float = option(1.0, "Largest norm of a step's gradient (muon, adamw).", min=1e-6)


# Inference


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Config):
    """The embedding."""

    output: Path | None = option(
        None,
        "The result: .npy or .tsv, or .h5 or .npz with --per-residue; - is stdout. By default <name of the first "
        "FASTA>.npy or .h5.",
        flags=("-o", "--output"),
    )
    pooling: Literal["auto", "mean", "max", "std", "cls"] = option(
        "auto", "From residues to one vector; auto is what the model was trained for, else the mean."
    )
    layer: str = option("auto", "Whose output: a number (0 is the embedding), last, or auto: as the model records.")
    per_residue: bool = option(False, "One vector per residue instead of one per protein.")
    dtype: Literal["float32", "float16"] = option("float32", "How the numbers are stored.")
    format: Literal["npy", "tsv", "h5", "npz"] | None = option(None, "The format where the name does not tell.")
    force: bool = option(False, "Replace an existing result.")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """The predictions."""

    output: Path | None = option(
        None,
        "The table; - is stdout. <name of the first FASTA>.predictions.tsv by default.",
        flags=("-o", "--output"),
    )
    force: bool = option(False, "Replace an existing table.")


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """The attention."""

    output: Path | None = option(
        None, "The directory of the results; <name of the first FASTA>.attention by default.", flags=("-o", "--output")
    )
    layers: str = option("all", "Layers whose maps are kept, from 1: all, or a list such as 1,4-6.")
    heads: str = option("all", "Heads whose maps are kept, from 1: all, or a list such as 1,4-6.")
    num_maps: int = option(10, "Keep maps and figures of the first so many proteins; statistics cover all.", min=0)
    dtype: Literal["float32", "float16"] = option("float32", "How the maps are stored.")
    force: bool = option(False, "Replace an existing directory.")


# Fine-tuning


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Config):
    """The task."""

    output: Path | None = option(
        None, "The model directory to make; <name of the table>.model by default.", flags=("-o", "--output")
    )
    task: TaskName = option("auto", "What the labels are; auto looks at them.")
    target: str | None = option(None, "The label's column; target or label by default.")
    sequence: str | None = option(None, "The sequence's column; sequence by default.")
    split_column: str | None = option(None, "The column with train, valid and test; split or set by default.")
    method: FinetuneMethod = option("full", "Train the whole encoder, or a linear head on the frozen one.")
    pooling: Literal["auto", "mean", "max", "std", "cls"] = option(
        "auto", "From residues to the vector that the head sees."
    )
    epochs: int = option(5, "Passes over the training proteins (full).", min=1)
    tokens_per_batch: int = option(4096, "Tokens of an optimiser step, at most (full).", min=64)
    seed: int = option(0, "The seed of the head's initialisation, the order and the held-out split.", min=0)
    force: bool = option(False, "Replace an existing model directory.")
