"""Options of `protembed embed`. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.config.shared import PoolingChoice


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Config):
    """The embedding."""

    output: Path | None = option(
        None,
        "The result: .npy or .tsv, or .h5 or .npz with --per-residue; - is stdout. By default <name of the first "
        "FASTA>.npy or .h5.",
        flags=("-o", "--output"),
    )
    pooling: PoolingChoice = option(
        "auto", "From residues to one vector; auto is what the model was trained for, else the mean."
    )
    layer: str = option("auto", "Whose output: a number (0 is the embedding), last, or auto: as the model records.")
    per_residue: bool = option(False, "One vector per residue instead of one per protein.")
    dtype: Literal["float32", "float16"] = option("float32", "How the numbers are stored.")
    format: Literal["npy", "tsv", "h5", "npz"] | None = option(None, "The format where the name does not tell.")
    force: bool = option(False, "Replace an existing result.")
