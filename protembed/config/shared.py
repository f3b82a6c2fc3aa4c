"""Options that several commands share: reading, computing, showing, the model. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option

PrecisionName = Literal["auto", "float32", "bfloat16"]
PoolingName = Literal["mean", "max", "std", "cls", "attention"]
# In the box: protembed/bundled/.
DEFAULT_MODEL = "protembed_t6_8M"
# What one thread computes at once: a thousand tokens stay in a core's cache, and a step gives work to several cores.
TOKENS_PER_PACK = 1024
# A GPU wants much more at once; 16,384 tokens of the 650M shape fit into 40 GB.
TOKENS_PER_GPU_PACK = 16_384


@dataclass(frozen=True, kw_only=True)
class ReaderConfig(Config):
    """Reading."""

    on_illegal: Literal["error", "mask", "skip"] = option(
        "error",
        "What to do about a character that is no amino acid: stop, read it as X (gaps and ends of chains never are), "
        "or leave the record out.",
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
