"""The linear map of the encoder's layers: torch's own, by the fastest matrix products where nothing is learned."""

import os
from typing import cast

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear map; with PROTEMBED_ONEDNN=1, on CPUs, in float32 and without gradients, computed by oneDNN.

    Torch multiplies float32 matrices by MKL, which on AMD's processors leaves half of the vector unit idle: on a Zen 5
    core oneDNN reached 270 GFLOP/s and MKL 120 (benchmarks/README.md). The operators are those that torch's compiler
    emits for the same purpose. It is off by default, for memory was seen to grow with the number of proteins.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (tokens, inputs) to (tokens, outputs)."""
        if not self._uses_onednn(input):
            return super().forward(input)
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], ""))

    def with_gelu(self, input: Tensor) -> Tensor:
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
            os.environ.get("PROTEMBED_ONEDNN") == "1"
            and not torch.is_grad_enabled()
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )
