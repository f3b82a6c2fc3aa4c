"""Options of `protembed finetune`. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.config.shared import PoolingChoice

TaskName = Literal["auto", "classification", "regression"]
FinetuneMethod = Literal["full", "frozen"]


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
    pooling: PoolingChoice = option("auto", "From residues to the vector that the head sees.")
    epochs: int = option(5, "Passes over the training proteins (full).", min=1)
    tokens_per_batch: int = option(4096, "Tokens of an optimiser step, at most (full).", min=64)
    seed: int = option(0, "The seed of the head's initialisation, the order and the held-out split.", min=0)
    force: bool = option(False, "Replace an existing model directory.")
