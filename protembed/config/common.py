"""What commands share: tasks, regions, and the options of input, device, console, model, optimiser. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from protembed.config.base import Config, option
from protembed.config.effects import only_with
from protembed.errors import ConfigError

TaskName = Literal["classification", "multilabel", "regression", "residue-classification", "residue-regression"]
LabelKind = Literal["class", "labels", "value"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of task.

    Attributes:
        label_kind: One of several classes, any number of labels, or a value.
        per_residue: Whether each residue has a label; otherwise the protein has one.
        main_metric: The metric by which models are compared, a key of `METRIC_NAMES`.
    """

    name: TaskName
    label_kind: LabelKind
    per_residue: bool
    main_metric: str


TASKS: Mapping[TaskName, Task] = {
    task.name: task
    for task in (
        Task(name="classification", label_kind="class", per_residue=False, main_metric="mcc"),
        Task(name="multilabel", label_kind="labels", per_residue=False, main_metric="auprc"),
        Task(name="regression", label_kind="value", per_residue=False, main_metric="spearman"),
        Task(name="residue-classification", label_kind="class", per_residue=True, main_metric="accuracy"),
        Task(name="residue-regression", label_kind="value", per_residue=True, main_metric="spearman"),
    )
}

# The class of a residue without a label; its value would be NaN.
UNKNOWN_CLASS = -1

METRIC_NAMES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "auprc": "mean AUPRC",
    "fmax": "Fmax",
    "spearman": "Spearman",
    "rmse": "RMSE",
    "mse": "MSE",
    "r2": "R²",
}

# The position of a window in its protein, in residues from 0: start and stop.
Span = tuple[int, int]


@dataclass(frozen=True)
class Region:
    """Residues A to B of each protein, both included.

    Attributes:
        first: The first residue, from 1.
        last: The last residue; None is the last of the protein.
    """

    first: int
    last: int | None

    @classmethod
    def parse(cls, text: str, *, words: str = "") -> "Region":
        """Read a region as the command line writes it.

        Args:
            text: The region.
            words: Words that the option takes beside a region, for the message, as in `all`.

        Raises:
            ConfigError: The text is not a region.

        >>> Region.parse("1-70"), str(Region.parse("-70")), str(Region.parse("20-"))
        (Region(first=1, last=70), '1-70', '20-')
        """
        if not cls.is_valid(text):
            expected = (
                "two residues such as 1-70 are expected, numbered from 1 (-70 begins with the first residue, 20- ends "
                f"with the last){words and f', or {words}'}"
            )
            raise ConfigError("region", text, expected)
        first, _, last = text.partition("-")
        return cls(int(first or 1), int(last) if last else None)

    @staticmethod
    def is_valid(text: str) -> bool:
        """Return whether a text is a region."""
        match = re.fullmatch(r"(\d{0,9})-(\d{0,9})", text, re.ASCII)
        return match is not None and text != "-" and 1 <= int(match[1] or 1) <= int(match[2] or 10**9)

    def within(self, num_residues: int) -> slice | None:
        """Return the residues of the region in a protein of this length; None where it ends before the region begins.

        >>> Region(20, 70).within(40), Region(20, 70).within(19)
        (slice(19, 40, None), None)
        """
        if self.first > num_residues:
            return None
        return slice(self.first - 1, num_residues if self.last is None else min(self.last, num_residues))

    def __str__(self) -> str:
        return f"{self.first}-{'' if self.last is None else self.last}"


def region_option(default: str | None, help: str, *, words: str = "") -> Any:
    """Declare an option that takes a region, or one of several words such as `auto, all`."""
    return option(default, help, check=lambda text: text in words.split(", ") or Region.parse(text, words=words))


def model_region_option() -> Any:
    """Declare the region of the proteins that a model is applied to."""
    help = (
        "Use only these residues of each protein, such as 1-70, numbered from 1 (also -70 and 20-). auto: the region "
        "that the model was fine-tuned on, else the whole protein; all: the whole protein. A protein that ends before "
        "the region is an error, or is skipped with --on-illegal skip."
    )
    return region_option("auto", help, words="auto, all")


def choose_region(text: str, recorded: str | None = None) -> Region | None:
    """Return the region that an option means; None is the whole protein.

    Args:
        text: `all`, `auto`, or a region.
        recorded: What `auto` means: the region that a model was trained on; None is the whole protein.

    >>> choose_region("auto", "1-70"), choose_region("all", "1-70"), choose_region("auto")
    (Region(first=1, last=70), None, None)
    """
    chosen = recorded if text == "auto" else text
    return None if chosen is None or chosen == "all" else Region.parse(chosen)


def parse_numbers(option: str, text: str, numbers: range, *, words: str = "all, last") -> tuple[int, ...]:
    """Parse a list of layers or heads, such as `1,4-6`, `all` or `last`.

    Layers are numbered as in Hugging Face: 0 is the input embedding, 1 to N are the blocks and their outputs.

    Args:
        option: Name of the option, for messages: `layer`, `layers` or `heads`.
        text: List of numbers and ranges.
        numbers: Numbers that the model has.
        words: Words that the option takes beside a list, for the message.

    Returns:
        The numbers in the order given, repeated where the list repeats them.

    Raises:
        ConfigError: The text is not such a list, or the model lacks a number of it.

    >>> parse_numbers("heads", "6,1-3", range(1, 21)), parse_numbers("layer", "last", range(7))
    ((6, 1, 2, 3), (6,))
    """
    if text in ("all", "last"):
        return tuple(numbers) if text == "all" else (numbers[-1],)
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip(), re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or first not in numbers or last not in numbers:
            what, low, high = option.rstrip("s"), numbers[0], numbers[-1]
            example = f"{low},{max(low, high - 1)}-{high}"
            raise ConfigError(
                option, text, f"this model has {what}s {low} to {high}: give {words}, or a list such as {example}"
            )
        chosen += range(first, last + 1)
    return tuple(chosen)


# A frozen encoder is not trained, nor is its head by steps.
TRAINED = only_with("method", "full", "lora")
_NOT_SGD = only_with("optimizer", "muon", "adamw")
OptimizerName = Literal["muon", "adamw", "sgd"]
ScheduleName = Literal["stable", "cosine"]


class OptimizerConfig(Config):
    """Training: the optimiser and the schedule of its learning rate."""

    optimizer: OptimizerName | None = option(
        None,
        "muon (with AdamW for all but the matrices of the layers), adamw, or plain sgd without momentum and clipping. "
        "Default: muon for pretraining, adamw for fine-tuning.",
        needs=[TRAINED],
        advanced=True,
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate. Default for pretraining: 0.003 (muon), 0.001 (adamw), 0.1 (sgd); for fine-tuning: 0.16 "
        "divided by the encoder's width, at most 0.001 (muon, adamw), ten times as much (sgd), more for lora.",
        min=0.0,
        needs=[TRAINED],
    )
    schedule: ScheduleName = option(
        "stable",
        "Learning rate after the warm-up: constant with a linear decay at the end (stable), or a cosine decay.",
        needs=[TRAINED],
        advanced=True,
    )
    warmup_steps: int | None = option(
        None, "Steps of linear warm-up. Default: a twentieth of all steps.", min=0, needs=[TRAINED], advanced=True
    )
    decay_fraction: float = option(
        0.25,
        "Fraction of the steps, at the end, in which the learning rate decays to zero (stable).",
        min=0.0,
        max=1.0,
        needs=[TRAINED, only_with("schedule", "stable")],
        advanced=True,
    )
    weight_decay: float = option(
        0.01, "Weight decay of matrices (muon, adamw).", min=0.0, needs=[TRAINED, _NOT_SGD], advanced=True
    )
    clip_norm: float = option(
        1.0, "Largest norm of a step's gradient (muon, adamw).", min=1e-6, needs=[TRAINED, _NOT_SGD], advanced=True
    )


PrecisionName = Literal["auto", "float32", "bfloat16"]
PoolingName = Literal["mean", "max", "std", "cls", "attention"]
# A folder of protembed/bundled/.
DEFAULT_MODEL = "protembed_t6_8M"
precision_option = partial(
    option,
    "auto",
    "Precision of matrix products; auto is bfloat16 on GPUs that support it, else float32.",
    advanced=True,
)
training_precision_option = partial(
    option,
    "auto",
    "Precision of matrix products in training; auto is bfloat16 on GPUs that support it and on CPUs with AMX, else "
    "float32. A run keeps the precision with which it began, and is validated in float32.",
    advanced=True,
)
window_option = partial(
    option, None, "Longest window, in residues. Default: as recorded in the model.", min=16, advanced=True
)

# What one thread computes at once: a thousand tokens stay in a core's cache, and a step occupies several cores.
MICRO_BATCH_TOKENS = 1024
# A GPU needs much more at once; 16,384 tokens of the 650M model fit into 40 GB.
GPU_MICRO_BATCH_TOKENS = 16_384
# Pretraining on a GPU chooses between these by the free memory.
MIN_GPU_TRAINING_TOKENS, MAX_GPU_TRAINING_TOKENS = 8192, 65_536


def clusters_option(use: str) -> Any:
    """Declare a table of clusters; `use` says what its clusters are for."""
    help = f"MMseqs2's _cluster.tsv, CD-HIT's .clstr, or a table of identifiers and clusters: {use}"
    return option(None, help, reads="clusters")


cluster_column_option = partial(
    option,
    None,
    "Column of --clusters with the clusters' names. Default: cluster50, cluster, representative or similar.",
    advanced=True,
)


OnIllegal = Literal["error", "mask", "skip"]
Gaps = Literal["error", "drop"]


class InputConfig(Config):
    """Input: how sequences are read."""

    on_illegal: OnIllegal = option(
        "error",
        "What to do about a character that is not an amino acid: stop with an error, read it as X (never a gap or the "
        "end of a chain), or skip the record.",
    )
    gaps: Gaps = option(
        "error",
        "What to do about the gaps of an alignment, - and .: stop with an error, or read each protein without them "
        "(aligned FASTA, A3M, A2M).",
        advanced=True,
    )


class DeviceConfig(Config):
    """Device: where to compute."""

    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "Where to compute; auto uses a GPU if there is one.")
    threads: int | None = option(
        None,
        "CPU threads. Default: the cores that a scheduler grants, else OMP_NUM_THREADS, else all that may be used.",
        min=1,
    )


OffloadName = Literal["auto", "never", "always"]


class InferenceDeviceConfig(DeviceConfig):
    """Device: where to compute, and what of the model is in memory."""

    offload: OffloadName = option(
        "auto",
        "Read the model's layers from its files one by one, each for many proteins, instead of keeping all in memory. "
        "auto: if the model does not fit into the memory of the device. The results are the same.",
        advanced=True,
    )


class ConsoleConfig(Config):
    """Console: what is printed."""

    quiet: bool = option(False, "Print only data, warnings and errors.", short="-q")
    json: bool = option(
        False, "Print a machine-readable summary, or error, to stdout (to stderr, alone, if stdout carries data)."
    )
    config: Path | None = option(
        None,
        "Repeat an earlier command with the options of its record (NAME.meta.json, meta.json, run.json, metrics.json), "
        "or take options from a JSON object. Those of the command line win; inputs and paths are given again.",
        reads="record",
        advanced=True,
    )
    log_file: Path | None = option(
        None, "Append the lines that are printed, each with the time, to this file.", advanced=True
    )


class ModelConfig(Config, kw_only=False):
    """Model: the model to use."""

    model: Path | None = option(
        None,
        "A model directory (ESM-2, ESM-1b, ESM-1v or ESM-C in Hugging Face layout), a run directory, a bundled model, "
        f"or a model on the hub (esm2_t12_35M, esmc_300m, owner/model). Default: {DEFAULT_MODEL}. See `protembed "
        "models`.",
        short="-m",
        reads="model",
    )

    @property
    def names(self) -> list[Path | None]:
        """The model in a list, as `ModelsConfig` lists several; None is the default model."""
        return [self.model]

    @property
    def only(self) -> Path | None:
        """The model; None is the default model."""
        return self.model


class ModelsConfig(Config):
    """Model: the model to use, or several."""

    model: list[Path] = option(
        [],
        "A model directory (ESM-2, ESM-1b, ESM-1v or ESM-C in Hugging Face layout), a run directory, a bundled model, "
        "or a model on the hub (esm2_t12_35M, esmc_300m, owner/model). Variants are scored by several models if it is "
        f"given several times: each has a column, and the score is their mean. Default: {DEFAULT_MODEL}. See "
        "`protembed models`.",
        short="-m",
        reads="model",
    )

    @property
    def names(self) -> list[Path | None]:
        """The models, in their order; None is the default model."""
        return [*self.model] or [None]

    @property
    def only(self) -> Path | None:
        """The model, where there can be only one; None is the default model.

        Raises:
            ConfigError: Several are given.
        """
        if len(self.model) > 1:
            raise ConfigError("model", str(self.model[1]), "several models score tables of variants only: give one")
        return self.names[0]
