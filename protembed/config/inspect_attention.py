"""Options of `protembed inspect-attention`. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, option


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """The attention."""

    output: Path | None = option(
        None, "The directory of the results; <name of the first FASTA>.attention by default.", flags=("-o", "--output")
    )
    layers: str = option("all", "Layers whose maps are kept, from 1: all, or a list such as 1,4-6.")
    heads: str = option("all", "Heads whose maps are kept, from 1: all, or a list such as 1,4-6.")
    num_maps: int = option(10, "Keep maps and figures of the first so many proteins; statistics cover all.", min=0)
    dtype: Literal["float32", "float16"] = option("float32", "How the maps are stored.")
    force: bool = option(False, "Replace an existing directory.")
