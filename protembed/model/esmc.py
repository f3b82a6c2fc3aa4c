"""The encoder of ESM-C, to be read from top to bottom.

Pre-LN layers with a gated feed-forward part (SwiGLU) and no biases in their linear maps; queries and keys are
normalised over the whole width before they are rotated; each branch is divided by a constant before it is added to the
residual stream. The masked-LM head has a decoder of its own.

Source: ESM Team 2024, "ESM Cambrian"; transformers' `modeling_esmc.py`, 2026.
"""

from typing import cast

import torch
from torch import Tensor, nn

from protembed.config.model_sizes import ESMC_NUM_ROWS, LAYER_NORM_EPS, ESMCShape
from protembed.model.encoder import AttentionBlock, Encoder, Layer, PackedLayout, SelectedTokens, attend_packed
from protembed.model.heads import MaskedLMHead
from protembed.model.onednn_linear import Linear


class SelfAttention(AttentionBlock):
    """Multi-head self-attention with normalised queries and keys and rotary positions over packed proteins.

    The rows of `qkv` are W_Q of all heads, then W_K, then W_V; `out` is W_O. The norms have no beta.

    Source: Vaswani et al. 2017, section 3.2; Su et al. 2021 (rotary positions); Dehghani et al. 2023 (QK-LayerNorm).
    """

    def __init__(self, shape: ESMCShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.residual_divisor = shape.residual_divisor
        self.qkv = Linear(shape.dim, 3 * shape.dim, bias=False)
        self.query_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS, bias=False)
        self.key_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS, bias=False)
        self.out = Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self, hidden: Tensor, layout: PackedLayout, residual: Tensor, selected: SelectedTokens | None = None
    ) -> Tensor:
        """Mix the tokens of each protein with one another, and add the result to the residual stream, (tokens, dim)."""
        query, key, value = self.project(hidden, layout)  # 3 × (tokens, head, head_dim)
        mixed = attend_packed(query, key, value, layout, selected)  # (tokens or selected, head, head_dim)
        # Divided before the product, which has no bias, so that oneDNN can add the residual stream within it.
        return self.out.add_residual(residual, mixed.flatten(1) / self.residual_divisor)

    def project(self, hidden: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor, Tensor]:
        """Compute normalised and rotated queries and keys, and values, (tokens, head, head_dim) each."""
        query, key, value = self.qkv(hidden.to(self.qkv.weight.dtype)).chunk(3, dim=-1)  # 3 × (tokens, dim)
        query, key = (
            layout.rotate(norm(vectors.float()).unflatten(-1, (1, self.num_heads, -1))).to(value.dtype)[:, 0]
            for norm, vectors in ((self.query_norm, query), (self.key_norm, key))
        )  # 2 × (tokens, head, head_dim)
        return query, key, value.unflatten(-1, (self.num_heads, -1))


class FeedForward(nn.Module):
    """SwiGLU, applied to each token: `down(silu(gate(x)) · up(x))`.

    Source: Shazeer 2020, "GLU variants improve transformer".
    """

    def __init__(self, shape: ESMCShape) -> None:
        super().__init__()
        self.residual_divisor = shape.residual_divisor
        self.gate = Linear(shape.dim, shape.feed_forward_dim, bias=False)
        self.up = Linear(shape.dim, shape.feed_forward_dim, bias=False)
        self.down = Linear(shape.feed_forward_dim, shape.dim, bias=False)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Map (tokens, dim) to (tokens, dim), and add the result to the residual stream."""
        hidden = hidden.to(self.up.weight.dtype)
        features = self.up.multiply(self.gate.linear_silu(hidden), hidden)  # (tokens, feed_forward_dim)
        return self.down.add_residual(residual, features / self.residual_divisor)


class ESMCEncoder(Encoder):
    """ESM-C's encoder: token embeddings, layers, a final LayerNorm without beta."""

    def __init__(self, shape: ESMCShape) -> None:
        super().__init__(shape, ESMC_NUM_ROWS)
        self.layers = nn.ModuleList(
            Layer(shape.dim, SelfAttention(shape), FeedForward(shape)) for _ in range(shape.num_layers)
        )
        self.final_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS, bias=False)

    def embed(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Look up the tokens' vectors, (tokens, dim), float32; `<mask>` has a vector of its own."""
        return cast("Tensor", self.embedding(tokens))


class ESMCMaskedLMHead(MaskedLMHead):
    """ESM-C's masked-LM head: dense, exact GELU, LayerNorm, and a decoder of its own instead of the embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, ESMC_NUM_ROWS)
        self.decoder = nn.Embedding.from_pretrained(torch.empty(ESMC_NUM_ROWS, dim), freeze=False)

    def _decoder(self, embedding: Tensor) -> Tensor:
        return cast("Tensor", self.decoder.weight)
