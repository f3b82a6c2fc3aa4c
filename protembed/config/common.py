"""Options that several commands share: input, device, console, model, optimiser, region, task. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.errors import ConfigError

TaskName = Literal["classification", "multilabel", "regression", "residue-classification", "residue-regression"]
LabelKind = Literal["class", "labels", "value"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of task.

    Attributes:
        name: as the user says it.
        label_kind: one of several classes, any number of labels, or a value.
        per_residue: whether each residue has an answer of its own, or the protein has one.
        main_metric: the figure by which models are compared.
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

# As the field writes them.
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


_EXPECTED = (
    "two residues such as 1-70 are expected, numbered from 1 (-70 begins with the first residue, 20- ends with the last"
)


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
            ConfigError: The text is no region.

        >>> Region.parse("1-70"), str(Region.parse("-70")), str(Region.parse("20-"))
        (Region(first=1, last=70), '1-70', '20-')
        """
        if not cls.is_valid(text):
            raise ConfigError("--region", text, f"{_EXPECTED}){words and f', or {words}'}")
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


def check_region(text: str, words: str) -> None:
    """Check an option that takes a region or one of several words.

    Raises:
        ConfigError: It is neither.
    """
    if text not in words.split(", "):
        Region.parse(text, words=words)


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


OptimizerName = Literal["muon", "adamw", "sgd"]
ScheduleName = Literal["stable", "cosine"]


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
        "Peak learning rate; by default 0.003 for muon, 0.001 for adamw, 0.1 for sgd. Finetuning: 0.16 over "
        "the encoder's width for muon and adamw, 1.6 over it for sgd, and more for lora.",
        min=0.0,
    )
    schedule: ScheduleName = option(
        "stable", "The rate after the warm-up: stable with a linear fall at the end, or a falling cosine."
    )
    warmup_steps: int | None = option(None, "Steps of linear warm-up; a twentieth of all steps by default.", min=0)
    decay_fraction: float = option(
        0.25, "The last share of the steps, over which the rate falls to zero (stable).", min=0.0, max=1.0
    )
    weight_decay: float = option(0.01, "Decay of weight matrices (muon, adamw).", min=0.0)
    clip_norm: float = option(1.0, "Largest norm of a step's gradient (muon, adamw).", min=1e-6)


PrecisionName = Literal["auto", "float32", "bfloat16"]
PoolingName = Literal["mean", "max", "std", "cls", "attention"]
# In the box: protembed/bundled/.
DEFAULT_MODEL = "protembed_t6_8M"
# What one thread computes at once: a thousand tokens stay in a core's cache, and a step gives work to several cores.
MICRO_BATCH_TOKENS = 1024
# A GPU wants much more at once; 16,384 tokens of the 650M shape fit into 40 GB.
GPU_MICRO_BATCH_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True)
class InputConfig(Config):
    """Reading."""

    on_illegal: Literal["error", "mask", "skip"] = option(
        "error",
        "What to do about a character that is no amino acid: stop, read it as X (gaps and ends of chains never are), "
        "or leave the record out.",
    )


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(Config):
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
class ConsoleConfig(Config):
    """Showing."""

    quiet: bool = option(False, "Print no more than data, warnings and errors.")
    json: bool = option(False, "Print a machine-readable summary on stdout (on stderr when stdout carries data).")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The model."""

    model: Path | None = option(
        None,
        "A model directory (ESM-2 in Hugging Face layout), a protembed run, a bundled model, or one of the hub "
        f"(esm2_t12_35M, owner/model); {DEFAULT_MODEL} by default. See `protembed models`.",
        flags=("-m", "--model"),
    )
