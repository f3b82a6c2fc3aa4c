"""The linear map of the encoder's layers: torch's own, by the fastest matrix products where nothing is learned."""

from typing import cast

import torch
from torch import Tensor, nn

# oneDNN keeps about 0.7 MB of compiled code for each number of rows that it meets, in each thread, and never lets go of
# it (benchmarks/README.md): it may meet sixteen.
_ROWS_STEP, _MOST_ROWS = 64, 1024


def padding_for(num_rows: int, device: torch.device) -> int:
    """Tell how many rows, whose results nobody reads, let oneDNN multiply; 0 where it is not to be used.

    Args:
        num_rows: tokens of a micro-batch.
        device: where they are.
    """
    is_wanted = device.type == "cpu" and not torch.is_grad_enabled() and num_rows <= _MOST_ROWS
    return -num_rows % _ROWS_STEP if is_wanted else 0


class Linear(nn.Linear):
    """A linear map; on CPUs, in float32 and without gradients, computed by oneDNN for the numbers of rows it may meet.

    Torch multiplies float32 matrices by MKL, which on AMD's processors leaves half of the vector unit idle: on a Zen 5
    core oneDNN reached 270 GFLOP/s and MKL 120 (benchmarks/README.md). The operators are those that torch's compiler
    emits for the same purpose.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs)."""
        if not self._uses_onednn(input):
            return super().forward(input)
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], ""))

    def linear_gelu(self, input: Tensor) -> Tensor:
        """Map, and apply the exact GELU to what comes out."""
        if not self._uses_onednn(input):
            return nn.functional.gelu(super().forward(input))
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "gelu", [], "none"))

    def added_to(self, stream: Tensor, input: Tensor) -> Tensor:
        """Map, and add the stream, (tokens, outputs), to what comes out."""
        if not self._uses_onednn(input):
            return stream + super().forward(input)
        added = torch.ops.mkldnn._linear_pointwise.binary(input, stream, self.weight, self.bias, "add")
        return cast("Tensor", added)

    def _uses_onednn(self, input: Tensor) -> bool:
        return (
            not torch.is_grad_enabled()
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and len(input) % _ROWS_STEP == 0
            and 0 < len(input) <= _MOST_ROWS
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )
