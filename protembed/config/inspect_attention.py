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
    save_maps: int = option(10, "Keep maps and figures of the first so many proteins; statistics cover all.", min=0)
    store_dtype: Literal["float32", "float16"] = option("float32", "How the maps are stored.")
    format: Literal["npz", "h5"] = option("npz", "The format of the maps.")
    figure_format: Literal["png", "svg", "both"] = option("png", "The format of the figures.")
    region: str | None = option(None, "Keep of the maps only these residues, as in 100-400, numbered from 1.")
    rollout: bool = option(False, "Keep the attention rollout too: the layers' mean maps, multiplied.")
    structures: list[Path] = option(
        [],
        "Structures to compare with (PDB or mmCIF, gzip or not), or a folder of them; may be repeated. Each protein is "
        "compared with the chain that shows its sequence best; a contact head is fitted to two proteins at least.",
    )
    sites: Path | None = option(
        None, "A table of annotated residues to compare with: the columns protein, position (from 1) and label."
    )
    num_permutations: int = option(
        10_000, "How often contacts and sites are drawn anew to tell which heads follow them.", min=100
    )
    seed: int = option(0, "The seed of those draws, and of the folds.", min=0)
    force: bool = option(False, "Replace an existing directory.")
