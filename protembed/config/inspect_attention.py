"""Options of `protembed inspect-attention`. No torch."""

from dataclasses import field
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import InferenceDeviceConfig, InputConfig, ModelConfig, parse_numbers, region_option
from protembed.config.effects import Condition, only_with_any
from protembed.config.model_sizes import EncoderShape

_SAVED = Condition("`save_maps` of at least 1", lambda given: given["save_maps"] > 0)


class AttentionConfig(Config):
    """Attention maps: which are computed, compared and saved."""

    output: Path | None = option(
        None, "Directory to write. Default: the name of the first FASTA file with .attention.", short="-o"
    )
    layers: str = option("all", "Layers whose maps are saved, from 1: all, last, or a list such as 1,4-6.")
    heads: str = option("all", "Heads whose maps are saved, from 1: all, last, or a list such as 1,4-6.")
    save_maps: int = option(10, "Save maps and figures for the first N proteins; statistics cover all.", min=0)
    store_dtype: Literal["float32", "float16"] = option("float32", "Precision of the stored maps.", needs=[_SAVED])
    format: Literal["npz", "h5"] = option("npz", "Format of the maps.", needs=[_SAVED])
    figure_format: Literal["png", "svg", "both"] = option("png", "Format of the figures.", needs=[_SAVED])
    region: str | None = region_option(None, "Save only these residues of the maps, such as 100-400, numbered from 1.")
    rollout: bool = option(False, "Save the attention rollout too: the product of the layers' mean maps.")
    structures: list[Path] = option(
        [],
        "Structures to compare with: PDB or mmCIF files, gzipped or not, or a folder; may be repeated. Each protein is "
        "compared with the chain that matches its sequence best. Two proteins are enough to fit a contact predictor.",
        reads="structures",
    )
    sites: Path | None = option(
        None,
        "Table of annotated residues to compare with, with columns protein, position (from 1) and label.",
        reads="table",
    )
    num_permutations: int = option(
        10_000,
        "Number of permutations in the significance tests of heads.",
        min=100,
        needs=[only_with_any("structures", "sites")],
        advanced=True,
    )
    seed: int = option(0, "Seed of the permutations and of the folds.", min=0)
    force: bool = option(False, "Replace an existing directory.")

    def layer_indices(self, shape: EncoderShape) -> list[int]:
        """List the layers whose maps are saved, as indices from 0."""
        return _parse_indices("layers", self.layers, shape.num_layers)

    def head_indices(self, shape: EncoderShape) -> list[int]:
        """List the heads whose maps are saved, as indices from 0."""
        return _parse_indices("heads", self.heads, shape.num_heads)


def _parse_indices(option: str, text: str, count: int) -> list[int]:
    """Parse a list of numbers from 1 to ascending indices from 0."""
    return sorted({number - 1 for number in parse_numbers(option, text, range(1, count + 1))})


class AttentionOptions(Options):
    """All options of `protembed inspect-attention`."""

    command = "inspect-attention"
    model: ModelConfig = field(default_factory=ModelConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)
