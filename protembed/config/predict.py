"""Options of `protembed predict`. No torch."""

from dataclasses import dataclass
from pathlib import Path

from protembed.config.base import Config, option
from protembed.config.region import check_region
from protembed.config.shared import ModelConfig


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
