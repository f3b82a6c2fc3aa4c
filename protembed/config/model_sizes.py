"""The sizes of encoders, by name, and what ESM-2 fixes for all of them. No torch."""

from dataclasses import dataclass
from typing import Literal

LAYER_NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0
# Weights, gradients and the states of optimisers are float32.
BYTES_PER_NUMBER = 4
# The alphabet of ESM-2; a test compares it with data/alphabet.py, which needs numpy.
_NUM_TOKENS = 33


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """The shape of an encoder; ESM-2 fixes everything else, the feed-forward width is four times `dim`."""

    num_layers: int
    dim: int
    num_heads: int

    @property
    def name(self) -> str:
        """Name of the size, or a description of a shape that has none."""
        size = next((size for size, shape in SIZES.items() if shape == self), None)
        return size or f"{self.num_layers} layers of width {self.dim}"

    @property
    def num_parameters(self) -> int:
        """Parameters of the encoder and its masked-LM head."""
        layer = 12 * self.dim**2 + 13 * self.dim
        lm_head = self.dim**2 + 3 * self.dim + _NUM_TOKENS
        return self.num_layers * layer + (_NUM_TOKENS + 2) * self.dim + lm_head


SIZES = {
    # For CPUs: heads of width 32 and 64 are up to twice as fast as the width 16 of ESM-2's small models.
    "t4_1M": EncoderShape(num_layers=4, dim=160, num_heads=5),
    "t6_3M": EncoderShape(num_layers=6, dim=192, num_heads=3),
    # Source: Lin et al. 2023, table S1, and the published checkpoints.
    "t6_8M": EncoderShape(num_layers=6, dim=320, num_heads=20),
    "t12_35M": EncoderShape(num_layers=12, dim=480, num_heads=20),
    "t30_150M": EncoderShape(num_layers=30, dim=640, num_heads=20),
    "t33_650M": EncoderShape(num_layers=33, dim=1280, num_heads=20),
    "t36_3B": EncoderShape(num_layers=36, dim=2560, num_heads=40),
    "t48_15B": EncoderShape(num_layers=48, dim=5120, num_heads=40),
}
DEFAULT_SIZE = "t6_8M"
SizeName = Literal["t4_1M", "t6_3M", "t6_8M", "t12_35M", "t30_150M", "t33_650M", "t36_3B", "t48_15B"]
