"""Options of `protembed pretrain`, except for the optimiser's. No torch."""

from dataclasses import field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import (
    MAX_GPU_TRAINING_TOKENS,
    MICRO_BATCH_TOKENS,
    MIN_GPU_TRAINING_TOKENS,
    DeviceConfig,
    InputConfig,
    OptimizerConfig,
    PrecisionName,
    cluster_column_option,
    clusters_option,
    training_precision_option,
)
from protembed.config.effects import only_with_any, only_without
from protembed.config.model_sizes import DEFAULT_SIZE, SIZES, EncoderShape, ESM2Shape, SizeName
from protembed.errors import ConfigError

ShardName = Literal["auto", "always", "never"]


def _check_tensorboard(is_requested: bool) -> None:
    if is_requested and find_spec("tensorboard") is None:
        expected = "the package tensorboard is not installed: run `pip install tensorboard`"
        raise ConfigError("tensorboard", is_requested, expected)


CompileName = Literal["auto", "never"]


class PretrainConfig(Config):
    """Run: the run directory, the data, and how long to train."""

    output: Path | None = option(
        None, "Run directory. Default: the name of the first FASTA file with .run.", short="-o"
    )
    size: SizeName | None = option(
        None,
        "Size of the encoder: layers and approximate parameters; --layers, --dim and --heads give it another shape. "
        f"Default: {DEFAULT_SIZE}.",
    )
    layers: int | None = option(
        None, "Layers of the encoder; with --dim and --heads, instead of --size.", min=1, advanced=True
    )
    dim: int | None = option(
        None, "Width of the encoder: an even number for each of the --heads.", min=2, advanced=True
    )
    heads: int | None = option(None, "Attention heads of each layer.", min=1, advanced=True)
    init_from: Path | None = option(None, "Start from the weights of this model instead of random ones.", reads="model")
    teacher: Path | None = option(
        None,
        "Learn to predict what this model predicts too, which is called distillation.",
        reads="model",
        advanced=True,
    )
    teacher_weight: float = option(
        0.9,
        "Weight of the teacher's predictions; the rest is that of the true amino acids.",
        min=0.0,
        max=1.0,
        needs=[only_with_any("teacher")],
        advanced=True,
    )
    weight_init: Literal["gaussian", "uniform"] = option(
        "gaussian",
        "Initialisation of weight matrices, with standard deviation 0.02.",
        needs=[only_without("init_from")],
        advanced=True,
    )
    valid: list[Path] = option(
        [],
        "Proteins to validate on; may be repeated, the first set decides which model is best. Default: a twentieth of "
        "the data, held out by sequence hash.",
        reads="fasta",
    )
    compare_model: Path | None = option(
        None,
        "Evaluate this model too, on the same masked residues; a name or path as for --model.",
        reads="model",
        advanced=True,
    )
    clusters: Path | None = clusters_option("sample a cluster first, then one of its members.")
    cluster_column: str | None = cluster_column_option()
    steps: int | None = option(None, "Optimiser steps. Default: planned from the data, about ten passes.", min=1)
    max_minutes: float | None = option(
        None, "Train as many steps as fit into this time; measured before step 0, adjusted during the run.", min=0.1
    )
    validate_every: int | None = option(
        None, "Steps between validations. Default: five validations in a run.", min=1, advanced=True
    )
    patience: int | None = option(
        None, "Stop after this many validations in a row without a lower loss.", min=1, advanced=True
    )
    save_every: int | None = option(
        None, "Steps between checkpoints. Default: twenty checkpoints in a run.", min=1, advanced=True
    )
    save_every_minutes: float = option(15.0, "Maximum number of minutes between checkpoints.", min=0.01, advanced=True)
    keep_checkpoints: int = option(
        2, "Number of checkpoints to keep, the newest; the best model is always kept.", min=1, advanced=True
    )
    precision: PrecisionName = training_precision_option()
    compile: CompileName = option(
        "auto",
        "Let torch's compiler make kernels of the encoder's layers. auto: when training in bfloat16 on an NVIDIA GPU; "
        "choose never for a run of a few minutes, because compiling takes time at the start.",
        advanced=True,
    )
    shard: ShardName = option(
        "auto",
        "Divide the weights, their gradients and the states of the optimiser among the processes that torchrun starts. "
        "auto: if they do not fit into the memory of one device.",
        advanced=True,
    )
    tensorboard: bool = option(
        False,
        "Write the log for TensorBoard too, into the folder tensorboard of the run; the package tensorboard must be "
        "installed.",
        check=_check_tensorboard,
        advanced=True,
    )
    dry_run: bool = option(False, "Print the plan, with measured time and memory, and exit.")
    seed: int = option(0, "Seed of initialisation, order, crops and masks.", min=0)
    force: bool = option(False, "Replace an existing run directory.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.max_minutes is not None:
            raise ConfigError("max_minutes", self.max_minutes, "`steps` was given too: choose one of the two")
        if self.size is not None and self.init_from is not None:
            raise ConfigError("size", self.size, "`init_from` was given too, and its model already has a size")
        self._check_shape()
        if self.clusters is None:
            self._check_absent("cluster_column", expected="it needs a table: give `clusters` too")

    def _check_shape(self) -> None:
        shape = {"layers": self.layers, "dim": self.dim, "heads": self.heads}
        given = {name: value for name, value in shape.items() if value is not None}
        if not given:
            return
        first, missing = next(iter(given)), [f"`{name}`" for name in shape if name not in given]
        if missing:
            raise ConfigError(first, given[first], f"{' and '.join(missing)} must be given with it")
        for name in ("size", "init_from"):
            if getattr(self, name) is not None:
                raise ConfigError(first, given[first], f"`{name}` was given too: choose one of the two")
        if given["dim"] % (2 * given["heads"]):
            expected = f"a multiple of {2 * given['heads']} is expected: each head needs an even width"
            raise ConfigError("dim", given["dim"], expected)

    @property
    def shape(self) -> EncoderShape:
        """Shape of a new encoder."""
        if self.layers is None or self.dim is None or self.heads is None:
            return SIZES[self.size or DEFAULT_SIZE]
        return ESM2Shape(num_layers=self.layers, dim=self.dim, num_heads=self.heads)


class BatchConfig(Config):
    """Training: batches."""

    batch_tokens: int = option(4096, "Maximum number of tokens in an optimiser step.", min=64)
    micro_batch_tokens: int | None = option(
        None,
        f"Approximate tokens of a micro-batch; gradients are accumulated. Default: {MICRO_BATCH_TOKENS:,} for each "
        f"CPU thread; on a GPU {MIN_GPU_TRAINING_TOKENS:,} to {MAX_GPU_TRAINING_TOKENS:,}, by its free memory.",
        min=64,
        advanced=True,
    )
    crop_residues: int = option(
        256, "Longer proteins are cropped to this many residues, at random each time.", min=8, advanced=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tokens < 2 * (self.crop_residues + 2):
            expected = f"two crops of {self.crop_residues} residues with <cls> and <eos> must fit"
            raise ConfigError("batch_tokens", self.batch_tokens, expected)


class MaskingConfig(Config):
    """Masking: which residues become targets, and what the model sees in their place."""

    mask_rate: float = option(
        0.15, "Fraction of the standard residues of a crop that become targets.", min=0.01, max=0.9, advanced=True
    )
    random_rate: float = option(
        0.10, "Fraction of the targets that are replaced by a random residue.", min=0.0, max=1.0, advanced=True
    )
    keep_rate: float = option(0.10, "Fraction of the targets that keep their residue.", min=0.0, max=1.0, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_rate + self.keep_rate > 1:
            raise ConfigError("keep_rate", self.keep_rate, "together with `random_rate` it must not exceed 1")


class PretrainOptions(Options):
    """All options of `protembed pretrain`."""

    command = "pretrain"
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: DeviceConfig = field(default_factory=DeviceConfig)
