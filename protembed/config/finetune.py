"""Options of `protembed finetune` and `protembed predict`. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.config.common import ModelConfig, TaskName, check_region
from protembed.errors import ConfigError

TaskChoice = Literal["auto", TaskName]
FinetuneMethod = Literal["frozen", "full", "lora"]
SplitName = Literal["random", "cluster", "kfold"]
HeadName = Literal["linear", "mlp"]

# Above this, training all parameters wants a large GPU, and adapters lose little (Schmirler et al. 2024).
MAX_FULL_FINETUNE_PARAMETERS = 150_000_000
# Of the training proteins so many k-mers are recorded in a model: half a megabyte. With them, and k-mers so long that
# unrelated proteins rarely share one, test proteins share one 2 to 15 times as often as proteins of another domain of
# life, and shuffled ones hardly ever (signal peptides, stability, melting points, locations).
MOST_TRAINING_KMERS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LabelTableConfig(Config):
    """The table."""

    task: TaskChoice = option("auto", "What the labels are; auto looks at them.")
    target: str | None = option(None, "The label's column; target or label by default.")
    sequence: str | None = option(None, "The sequence's column; sequence by default.")
    id: str | None = option(
        None, "The identifier's column; id, accession, protein_id, entry, name and the like by default."
    )
    label_separator: str | None = option(
        None, "Text that divides several labels of a protein; ; always does, | and , where that is certain."
    )
    region: str = option(
        "all",
        "Learn from these residues of each protein only, as in 1-70, numbered from 1 (also -70 and 20-); all is the "
        "whole protein. The model records the region, and predict and embed use the same one. A protein that ends "
        "before the region begins is an error, or left out with --on-illegal skip.",
    )
    split_column: str | None = option(None, "The column with train, valid and test; split or set by default.")
    split: SplitName | None = option(
        None,
        "Divide the proteins anew: random, whole clusters of similar ones, or five folds of which each is the test "
        "part once. A table without a split column is divided by cluster.",
    )
    cluster_identity: float = option(
        0.5, "Proteins at least so similar, by common 5-mers, stand on one side (cluster, kfold).", min=0.2, max=1.0
    )
    drop_leaked: bool = option(False, "Leave out test proteins whose sequence also stands in train or valid.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_region(self.region, "all")
        if self.split is not None and self.split_column is not None:
            raise ConfigError("--split", self.split, "--split-column already says where each protein stands")
        if self.label_separator is not None and self.task not in ("auto", "multilabel"):
            raise ConfigError(
                "--label-separator", self.label_separator, f"--task {self.task} has one label in each cell"
            )
        if self.label_separator == "":
            raise ConfigError("--label-separator", self.label_separator, "at least one character is expected")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Config):
    """The learning."""

    output: Path | None = option(
        None, "The model directory to make; <name of the table>.model by default.", flags=("-o", "--output")
    )
    method: FinetuneMethod | None = option(
        None,
        "Leave the encoder frozen and fit a head to its vectors (seconds), train all of it (full), or adapters of low "
        "rank that are merged at the end (lora). By default full up to 150 million parameters, lora above.",
    )
    pooling: str = option(
        "auto",
        "From residues to the vector that the head sees: mean, max, std, cls, several side by side (mean,std), or "
        "attention, which is learned; auto is as the model records, else mean.",
    )
    head: HeadName = option("linear", "A linear map, or one with a hidden layer (mlp).")
    epochs: int = option(10, "Passes over the training proteins, at most (full, lora).", min=1)
    patience: int = option(5, "Epochs without a lower validation loss after which the training ends.", min=1)
    batch_tokens: int = option(4096, "Tokens of an optimiser step, at most (full, lora).", min=64)
    head_lr_multiplier: float = option(
        3.0, "The head learns so many times faster than the encoder (full, lora).", min=0.01, max=1000.0
    )
    lora_rank: int = option(8, "Rank of the adapters (lora).", min=1, max=256)
    balance_classes: bool = option(False, "Weigh rare classes and labels up, so that all count alike in the loss.")
    gradient_checkpointing: bool = option(
        False, "Compute each layer twice instead of keeping it: less memory, a third slower (full, lora)."
    )
    repeats: int = option(1, "Train so often, with seeds of their own; the best on the validation part is kept.", min=1)
    skip_random_baseline: bool = option(False, "Do not train the same shape from random initialisation for comparison.")
    seed: int = option(0, "The seed of the head's initialisation, the order and the split.", min=0)
    force: bool = option(False, "Replace an existing model directory.")


@dataclass(frozen=True, kw_only=True)
class FinetunedModelConfig(ModelConfig):
    """The model."""

    model: Path | None = option(
        None,
        "A model that was fine-tuned, which must be named: a directory that `protembed finetune` made, or one of the "
        "hub (owner/model).",
        flags=("-m", "--model"),
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """The predictions."""

    output: Path | None = option(
        None,
        "The table; - is stdout. <name of the first FASTA>.predictions.tsv by default.",
        flags=("-o", "--output"),
    )
    region: str = option(
        "auto",
        "Use only these residues of each protein, as in 1-70, numbered from 1 (also -70 and 20-). auto is the region "
        "that the model was fine-tuned on, else the whole protein; all is the whole protein. A protein that ends "
        "before the region begins is an error, or left out with --on-illegal skip.",
    )
    force: bool = option(False, "Replace an existing table.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_region(self.region, "auto, all")
