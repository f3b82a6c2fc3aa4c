"""Options of `protembed predict`. No torch."""

from dataclasses import dataclass
from pathlib import Path

from protembed.config.base import Config, option


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """The predictions."""

    output: Path | None = option(
        None,
        "The table; - is stdout. <name of the first FASTA>.predictions.tsv by default.",
        flags=("-o", "--output"),
    )
    force: bool = option(False, "Replace an existing table.")
