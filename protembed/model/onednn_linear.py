"""The linear map of the encoder's layers: torch's own, computed by oneDNN in inference on CPUs."""

from typing import cast

import torch
from torch import Tensor, nn

from protembed.device import has_fused_products

# oneDNN keeps about 0.7 MB of compiled code for each number of rows, in each thread, and never frees it; with gradients
# in bfloat16 it is twelve (benchmarks/README.md). In float32 these are sixteen numbers of rows.
_ROWS_STEP, _MAX_ROWS = 64, 1024


def padding_for(num_rows: int, device: torch.device, dtype: torch.dtype = torch.float32) -> int:
    """Count the rows that must be added so that oneDNN multiplies few numbers of rows; 0 where it is not used.

    Torch uses oneDNN in half precision for any number of rows, and also with gradients.

    Args:
        num_rows: Tokens, or selected tokens.
        device: The device of the encoder.
        dtype: The dtype of the encoder's matrices; products of float32 ones are in bfloat16 within autocast.
    """
    is_half = dtype.itemsize < torch.float32.itemsize or torch.is_autocast_enabled("cpu")
    is_inference = not torch.is_grad_enabled() and num_rows <= _MAX_ROWS
    uses_onednn = device.type == "cpu" and (is_half or is_inference)
    return -num_rows % _ROWS_STEP if uses_onednn else 0


class Linear(nn.Linear):
    """A linear map, computed by oneDNN's fused products on CPUs without gradients, if the number of rows allows it.

    Torch multiplies float32 matrices with MKL, which on AMD's processors leaves half of the vector unit idle: on a Zen
    5 core oneDNN reached 270 GFLOP/s and MKL 120 (benchmarks/README.md). In bfloat16 torch uses oneDNN too; the fused
    products save a pass over the result. The operators are those that torch's compiler emits for the same purpose.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs)."""
        if not self._uses_onednn(input):
            return super().forward(input)
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], ""))

    def linear_gelu(self, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs), and apply the exact GELU."""
        if not self._uses_onednn(input):
            return nn.functional.gelu(super().forward(input))
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "gelu", [], "none"))

    def linear_silu(self, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs), and apply SiLU."""
        if not self._uses_onednn(input):
            return nn.functional.silu(super().forward(input))
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "swish", [], ""))

    def multiply(self, factor: Tensor, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs), and multiply by a factor, (tokens, outputs)."""
        if not self._uses_onednn(input):
            return factor * super().forward(input)
        product = torch.ops.mkldnn._linear_pointwise.binary(input, factor, self.weight, self.bias, "mul")
        return cast("Tensor", product)

    def add_residual(self, residual: Tensor, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs), and add the residual stream, (tokens, outputs), float32."""
        if input.dtype != residual.dtype and input.device.type == "cpu":
            # On a CPU torch adds numbers of two dtypes one by one, without vector instructions.
            return cast("Tensor", residual + self(input).to(residual.dtype))
        if not self._uses_onednn(input):
            return residual + super().forward(input)
        added = torch.ops.mkldnn._linear_pointwise.binary(input, residual, self.weight, self.bias, "add")
        return cast("Tensor", added)

    def _uses_onednn(self, input: Tensor) -> bool:
        return (
            not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype
            and has_fused_products(input.dtype)
            and len(input) % _ROWS_STEP == 0
            and 0 < len(input) <= _MAX_ROWS
        )
