"""The shapes of encoders, their sizes by name, and what an architecture fixes for all of them. No torch."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

LAYER_NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0
# Weights, gradients and the states of optimisers are float32.
BYTES_PER_NUMBER = 4
# The alphabet of ESM-2; a test compares it with data/alphabet.py, which needs numpy.
_NUM_TOKENS = 33
# The longest crops that published models were trained on, in residues, without <cls> and <eos>.
ESM2_WINDOW_RESIDUES, _ESMC_WINDOW_RESIDUES = 1022, 2046
# Learned positions begin after the id of <pad>: the rows of that and of <cls> are never used.
NUM_UNUSED_POSITIONS = 2
# ESM-C's embedding has more rows than its alphabet has tokens.
ESMC_NUM_ROWS = 64
# ESM-C's feed-forward width is a multiple of this.
_ESMC_WIDTH_STEP = 256
# Each branch of an ESM-C of so many layers is added to the residual stream as it is.
_ESMC_UNSCALED_LAYERS = 36


@dataclass(frozen=True, kw_only=True)
class EncoderShape(ABC):
    """The shape of an encoder; the subclass is its architecture, which fixes everything else."""

    num_layers: int
    dim: int
    num_heads: int

    @property
    def name(self) -> str:
        """Name of the size, or a description of a shape that has none."""
        size = next((size for size, shape in SIZES.items() if shape == self), None)
        return size or f"{self.num_layers} layers of width {self.dim}"

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.dim // self.num_heads

    @property
    def trained_window_residues(self) -> int:
        """The residues of the longest crops that published models were trained on, or fewer where no more fit."""
        return ESM2_WINDOW_RESIDUES if self.max_residues is None else min(ESM2_WINDOW_RESIDUES, self.max_residues)

    @property
    def max_residues(self) -> int | None:
        """The most residues that one pass can hold; None where any number can, because positions are rotary."""
        return None

    @property
    @abstractmethod
    def feed_forward_dim(self) -> int:
        """Width between the linear maps of the feed-forward part."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Parameters of the encoder and its masked-LM head."""

    @property
    @abstractmethod
    def num_layer_weights(self) -> int:
        """Weights of the matrices of one layer, each of which is multiplied and added once for each token."""

    @property
    @abstractmethod
    def num_layer_parameters(self) -> int:
        """Parameters of one layer."""


@dataclass(frozen=True, kw_only=True)
class ESM2Shape(EncoderShape):
    """The shape of an ESM-2; other settings make it an ESM-1b or an ESM-1v.

    Attributes:
        num_positions: The number of learned positions, which is the most tokens of a crop; None for rotary positions.
        has_embedding_norm: Whether the embedding is normalised before the first layer.
        has_token_dropout: Whether `<mask>` is embedded as zero and the other tokens are scaled to make up for it.

    Source: Rives et al. 2021 (ESM-1b), Meier et al. 2021 (ESM-1v), Lin et al. 2023 (ESM-2).
    """

    num_positions: int | None = None
    has_embedding_norm: bool = False
    has_token_dropout: bool = True

    @property
    def max_residues(self) -> int | None:
        """The most residues that one pass can hold, beside `<cls>` and `<eos>`; None where any number can."""
        return None if self.num_positions is None else self.num_positions - 2

    @property
    def feed_forward_dim(self) -> int:
        """Width between the linear maps of the feed-forward part."""
        return 4 * self.dim

    @property
    def num_layer_weights(self) -> int:
        """Weights of the matrices of one layer."""
        return 12 * self.dim**2

    @property
    def num_layer_parameters(self) -> int:
        """Parameters of one layer."""
        return self.num_layer_weights + 13 * self.dim

    @property
    def num_parameters(self) -> int:
        """Parameters of the encoder and its masked-LM head."""
        num_position_rows = 0 if self.num_positions is None else NUM_UNUSED_POSITIONS + self.num_positions
        embedding = (_NUM_TOKENS + num_position_rows + 2 * self.has_embedding_norm) * self.dim
        lm_head = self.dim**2 + 3 * self.dim + _NUM_TOKENS
        return self.num_layers * self.num_layer_parameters + embedding + 2 * self.dim + lm_head


@dataclass(frozen=True, kw_only=True)
class ESMCShape(EncoderShape):
    """The shape of an ESM-C.

    Source: the `esm` package of EvolutionaryScale, 2024; transformers' `EsmcModel`, 2026.
    """

    @property
    def feed_forward_dim(self) -> int:
        """Width of the gated units: 8/3 of `dim`, so that three maps have the weights of two, rounded up to 256."""
        return -(-8 * self.dim // (3 * _ESMC_WIDTH_STEP)) * _ESMC_WIDTH_STEP

    @property
    def trained_window_residues(self) -> int:
        """The residues of the longest crops that published models of the architecture were trained on."""
        return _ESMC_WINDOW_RESIDUES

    @property
    def residual_divisor(self) -> float:
        """What each branch is divided by before it is added to the residual stream."""
        return math.sqrt(self.num_layers / _ESMC_UNSCALED_LAYERS)

    @property
    def num_layer_weights(self) -> int:
        """Weights of the matrices of one layer."""
        return 4 * self.dim**2 + 3 * self.dim * self.feed_forward_dim

    @property
    def num_layer_parameters(self) -> int:
        """Parameters of one layer."""
        return self.num_layer_weights + 6 * self.dim

    @property
    def num_parameters(self) -> int:
        """Parameters of the encoder and its masked-LM head."""
        lm_head = self.dim**2 + 3 * self.dim + ESMC_NUM_ROWS * (self.dim + 1)
        return self.num_layers * self.num_layer_parameters + (ESMC_NUM_ROWS + 1) * self.dim + lm_head


SIZES: dict[str, EncoderShape] = {
    # For CPUs: heads of width 32 and 64 are up to twice as fast as the width 16 of ESM-2's small models.
    "t4_1M": ESM2Shape(num_layers=4, dim=160, num_heads=5),
    "t6_3M": ESM2Shape(num_layers=6, dim=192, num_heads=3),
    # Source: Lin et al. 2023, table S1, and the published checkpoints.
    "t6_8M": ESM2Shape(num_layers=6, dim=320, num_heads=20),
    "t12_35M": ESM2Shape(num_layers=12, dim=480, num_heads=20),
    "t30_150M": ESM2Shape(num_layers=30, dim=640, num_heads=20),
    "t33_650M": ESM2Shape(num_layers=33, dim=1280, num_heads=20),
    "t36_3B": ESM2Shape(num_layers=36, dim=2560, num_heads=40),
    "t48_15B": ESM2Shape(num_layers=48, dim=5120, num_heads=40),
}
DEFAULT_SIZE = "t6_8M"
SizeName = Literal["t4_1M", "t6_3M", "t6_8M", "t12_35M", "t30_150M", "t33_650M", "t36_3B", "t48_15B"]
