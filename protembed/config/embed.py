"""Options of `protembed embed` and `protembed check`. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option
from protembed.config.common import check_region

EmbedPrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
H5Names = Literal["id", "hash"]
LongPolicy = Literal["window", "error", "truncate", "skip"]


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Config):
    """The embedding."""

    output: Path | None = option(
        None,
        "The result: .npy, .npz, .tsv or .h5, with --per-residue .h5 or .npz; - is stdout. By default <name of the "
        "first FASTA>.npy or .h5.",
        flags=("-o", "--output"),
    )
    pooling: str = option(
        "auto",
        "From residues to one vector: mean, max, std, cls, or several side by side (mean,std); auto is what the model "
        "was trained for, else the mean.",
    )
    layer: str = option(
        "auto",
        "Whose output: a number (0 is the embedding), last, all, several side by side (3,6), or auto: as the model "
        "records.",
    )
    per_residue: bool = option(False, "One vector per residue instead of one per protein.")
    region: str = option(
        "auto",
        "Use only these residues of each protein, as in 1-70, numbered from 1 (also -70 and 20-). auto is the region "
        "that the model was fine-tuned on, else the whole protein; all is the whole protein. A protein that ends "
        "before the region begins is an error, or left out with --on-illegal skip.",
    )
    long_proteins: LongPolicy = option(
        "window",
        "What to do about a protein longer than the window: compute overlapping windows and blend them, stop, cut it "
        "off, or leave it out and list it.",
    )
    window_residues: int | None = option(
        None, "The longest stretch that is computed at once, in residues; by default what the model records.", min=16
    )
    precision: EmbedPrecisionName = option(
        "auto", "Of the matrix products; auto is bfloat16 on GPUs that have it, else float32."
    )
    store_dtype: Literal["float32", "float16"] = option("float32", "How the numbers are stored.")
    format: Literal["npy", "npz", "tsv", "h5"] | None = option(None, "The format of stdout, and of the default name.")
    h5_names: H5Names = option(
        "id",
        "Names of the datasets in .h5: the proteins' identifiers (a hash of the sequence where an identifier is not "
        "unique or has a slash), or for biotrainer the hash throughout.",
    )
    shard: str | None = option(
        None, "Only the I-th of N parts, as in 2/8: consecutive proteins, about as many residues in each part."
    )
    dry_run: bool = option(False, "Say what it would take, after a short measurement, and leave.")
    force: bool = option(False, "Replace an existing result, and an unfinished one of another command.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_region(self.region, "auto, all")


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Config):
    """The verification."""

    sample_size: int = option(20, "How many proteins are computed again, drawn at random by --seed.", min=0)
    seed: int = option(0, "Which proteins are drawn.", min=0)
