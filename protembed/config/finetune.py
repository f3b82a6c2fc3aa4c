"""Options of `protembed finetune` and `protembed predict`. No torch."""

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from protembed.config.base import Config, Options, as_plain_values, option
from protembed.config.common import (
    TRAINED,
    DeviceConfig,
    InferenceDeviceConfig,
    InputConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionName,
    TaskName,
    cluster_column_option,
    clusters_option,
    model_region_option,
    region_option,
    training_precision_option,
)
from protembed.config.effects import only_with
from protembed.errors import ConfigError
from protembed.io.fingerprint import settings_to_record

TaskChoice = Literal["auto", TaskName]
FinetuneMethod = Literal["frozen", "full", "lora"]
SplitName = Literal["random", "cluster", "kfold"]
HeadName = Literal["linear", "mlp"]

# Above this, training all parameters needs a large GPU, and adapters lose little (Schmirler et al. 2024).
MAX_FULL_FINETUNE_PARAMETERS = 150_000_000
# A fine-tuned model records at most this many k-mers of its training proteins: half a megabyte. The k-mers are so long
# that unrelated proteins rarely share one: test proteins share one 2 to 15 times as often as proteins of another domain
# of life, and shuffled ones almost never (signal peptides, stability, melting points, locations).
MAX_TRAINING_KMERS = 1 << 16


class LabelTableConfig(Config):
    """Input table: its columns, and how its proteins are split."""

    task: TaskChoice = option("auto", "Kind of task; auto infers it from the labels.")
    target: str | None = option(None, "Column with the labels. Default: target or label.")
    sequence: str | None = option(None, "Column with the sequences. Default: sequence, seq or similar.")
    id: str | None = option(
        None, "Column with the identifiers. Default: id, accession, protein_id, entry, name or similar."
    )
    label_separator: str | None = option(
        None,
        "Separator of several labels in one cell. Default: a semicolon always, | and , where they are unambiguous.",
        advanced=True,
    )
    region: str = region_option(
        "all",
        "Learn only from these residues of each protein, such as 1-70, numbered from 1 (also -70 and 20-); all: the "
        "whole protein. The model records the region, and predict and embed use the same one. A protein that ends "
        "before the region is an error, or is skipped with --on-illegal skip.",
        words="all",
    )
    on_missing: Literal["error", "skip"] = option(
        "error",
        "What to do about rows without a sequence, label or split: stop with an error that lists them, or leave them "
        "out and list them in failed.tsv.",
    )
    split_column: str | None = option(None, "Column with train, valid and test. Default: split or set.")
    test_set: str | None = option(
        None,
        "Split of the test proteins where the table has several, such as test2 or holdout; the others are left out. "
        "Default: test, else the first.",
        advanced=True,
    )
    split: SplitName | None = option(
        None,
        "Split the proteins, ignoring the split column: at random, by clusters of similar sequences, or into five "
        "folds, each of which is the test set once. Default for tables without a split column: cluster.",
    )
    cluster_identity: float = option(
        0.5,
        "Proteins at least this similar (shared 5-mers) are kept in the same split (cluster, kfold).",
        min=0.2,
        max=1.0,
        needs=[only_with("split", "cluster", "kfold")],
        advanced=True,
    )
    clusters: Path | None = clusters_option(
        "keep the members of a cluster in the same split (cluster, kfold), instead of clusters of similar sequences."
    )
    cluster_column: str | None = cluster_column_option()
    drop_leaked: bool = option(False, "Drop test proteins whose sequence is also in train or valid.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split is not None and self.split_column is not None:
            raise ConfigError("split", self.split, "`split_column` already assigns each protein to a split")
        if self.clusters is not None and self.split == "random":
            raise ConfigError("split", self.split, "`clusters` needs cluster or kfold")
        if self.clusters is not None and self.split_column is not None:
            raise ConfigError("clusters", str(self.clusters), "`split_column` already assigns each protein to a split")
        if self.clusters is not None and self.cluster_identity != type(self).cluster_identity:
            raise ConfigError("cluster_identity", self.cluster_identity, "`clusters` says which proteins are similar")
        if self.clusters is None:
            self._check_absent("cluster_column", expected="it needs a table: give `clusters` too")
        if self.split is not None and self.test_set is not None:
            raise ConfigError("test_set", self.test_set, f"`split` {self.split} draws another test split")
        if self.label_separator is not None and self.task not in ("auto", "multilabel"):
            raise ConfigError("label_separator", self.label_separator, f"`task` {self.task} has one label in each cell")
        if self.label_separator == "":
            raise ConfigError("label_separator", self.label_separator, "at least one character is expected")


class FinetuneConfig(Config):
    """Training: how the encoder and the head are trained."""

    output: Path | None = option(
        None, "Model directory to write. Default: the name of the table with .model.", short="-o"
    )
    method: FinetuneMethod | None = option(
        None,
        "frozen: fit a head to the vectors of the frozen encoder (seconds); full: train all parameters; lora: train "
        "low-rank adapters and merge them at the end. Default: full up to 150 million parameters, lora above.",
    )
    pooling: str = option(
        "auto",
        "How residue vectors become the head's input: mean, max, std, cls, several concatenated (mean,std), or "
        "attention (learned); auto: as recorded in the model, else mean.",
    )
    head: HeadName = option("linear", "Task head: linear, or with one hidden layer (mlp).")
    epochs: int = option(
        10, "Maximum number of passes over the training proteins (full, lora).", min=1, needs=[TRAINED]
    )
    patience: int = option(
        5,
        "Stop after this many epochs without a lower validation loss (full, lora).",
        min=1,
        needs=[TRAINED],
        advanced=True,
    )
    batch_tokens: int = option(
        4096, "Maximum number of tokens in an optimiser step (full, lora).", min=64, needs=[TRAINED]
    )
    head_lr_multiplier: float = option(
        3.0,
        "Learning rate of the head as a multiple of the encoder's (full, lora).",
        min=0.01,
        max=1000.0,
        needs=[TRAINED],
        advanced=True,
    )
    lora_rank: int = option(
        8, "Rank of the adapters (lora).", min=1, max=256, needs=[only_with("method", "lora")], advanced=True
    )
    balance_classes: bool = option(False, "Weight classes inversely to their frequency in the loss.")
    gradient_checkpointing: bool = option(
        False,
        "Save memory by computing each layer twice; about a third slower (full, lora).",
        needs=[TRAINED],
        advanced=True,
    )
    precision: PrecisionName = training_precision_option(needs=[TRAINED])
    repeats: int = option(1, "Number of runs with different seeds; the best on validation is kept.", min=1)
    skip_random_baseline: bool = option(False, "Do not train the same encoder from random weights for comparison.")
    seed: int = option(0, "Seed of the head's initialisation, the order of proteins and the split.", min=0)
    force: bool = option(False, "Replace an existing model directory.")


class FinetunedModelConfig(ModelConfig, kw_only=False):
    """Model: the fine-tuned model to use."""

    model: Path | None = option(
        None,
        "A fine-tuned model (required): a directory that `protembed finetune` wrote, or a model on the hub "
        "(owner/model).",
        short="-m",
        reads="model",
    )


class PredictConfig(Config):
    """Prediction: what is predicted, and where it is written."""

    output: Path | None = option(
        None,
        "Output table, CSV if its name ends in .csv, else TSV; - is stdout. Default: the name of the first input with "
        ".predictions.tsv.",
        short="-o",
    )
    sequence: str | None = option(None, "Column of an input table with the sequences. Default: sequence or similar.")
    id: str | None = option(
        None, "Column of an input table with the identifiers. Default: id, accession, protein_id, entry or similar."
    )
    on_missing: Literal["error", "skip"] = option(
        "error",
        "What to do about rows of a table without a sequence: stop with an error that lists them, or leave them out.",
    )
    descriptions: bool = option(
        False, "Add a column with the description of each FASTA record, which follows its identifier.", advanced=True
    )
    region: str = model_region_option()
    force: bool = option(False, "Replace an existing table.")


class FinetuneOptions(Options):
    """All options of `protembed finetune`."""

    command = "finetune"
    model: ModelConfig = field(default_factory=ModelConfig)
    labels: LabelTableConfig = field(default_factory=LabelTableConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: DeviceConfig = field(default_factory=DeviceConfig)

    def settings(self) -> dict[str, Any]:
        """Return the options that shape the result, except paths."""
        return settings_to_record(as_plain_values(self.finetune, self.labels, self.optimizer, self.reader))


class PredictOptions(Options):
    """All options of `protembed predict`."""

    command = "predict"
    model: FinetunedModelConfig = field(default_factory=FinetunedModelConfig)
    prediction: PredictConfig = field(default_factory=PredictConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)
