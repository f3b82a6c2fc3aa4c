"""The encoder of ESM-2, and of ESM-1b and ESM-1v, which differ in their settings; to be read from top to bottom.

Pre-LN layers, exact GELU, LayerNorm with eps 1e-5, biases everywhere. Positions are rotary in ESM-2 and learned in
ESM-1b and ESM-1v.

Source: Lin et al. 2023, "Evolutionary-scale prediction of atomic-level protein structure with a language model"; Rives
et al. 2021 (ESM-1b); Meier et al. 2021 (ESM-1v).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protembed.config.model_sizes import LAYER_NORM_EPS, NUM_UNUSED_POSITIONS, ESM2Shape
from protembed.data.alphabet import MASK, TOKENS
from protembed.model.encoder import AttentionBlock, Encoder, Layer, PackedLayout, SelectedTokens, attend_packed
from protembed.model.onednn_linear import Linear

# The models were trained with 15 % of the residues chosen and 80 % of those replaced by <mask>. The constant does not
# follow the mask rate used here, because embeddings of published checkpoints would change their scale.
TRAINED_MASK_FRACTION = 0.15 * 0.8


class SelfAttention(AttentionBlock):
    """Multi-head self-attention over packed proteins, with rotary positions unless positions are learned.

    head_j(e_i, K, V) = Attention(W_Q^j e_i, W_K^j K, W_V^j V), concatenated over heads and projected by W_O. The rows
    of `qkv` are W_Q of all heads, then W_K, then W_V; `out` is W_O.

    Source: Vaswani et al. 2017, section 3.2; rotary positions: Su et al. 2021.
    """

    def __init__(self, shape: ESM2Shape) -> None:
        super().__init__()
        self.num_heads, self.is_rotary = shape.num_heads, shape.num_positions is None
        self.qkv = Linear(shape.dim, 3 * shape.dim)
        self.out = Linear(shape.dim, shape.dim)

    def forward(
        self, hidden: Tensor, layout: PackedLayout, residual: Tensor, selected: SelectedTokens | None = None
    ) -> Tensor:
        """Mix the tokens of each protein with one another, and add the result to the residual stream, (tokens, dim)."""
        query, key, value = self.project(hidden, layout)  # 3 × (tokens, head, head_dim)
        mixed = attend_packed(query, key, value, layout, selected)  # (tokens or selected, head, head_dim)
        return self.out.add_residual(residual, mixed.flatten(1))

    def project(self, hidden: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries and keys, rotated where positions are rotary, and values, (tokens, head, head_dim) each."""
        projected = self.qkv(hidden.to(self.qkv.weight.dtype))  # (tokens, 3 · dim)
        projected = projected.unflatten(-1, (3, self.num_heads, -1))  # (tokens, 3, head, head_dim)
        if self.is_rotary:
            return layout.rotate_packed(projected)
        query, key = projected[:, :2].unbind(1)
        return query, key, projected[:, 2]


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them, applied to each token."""

    def __init__(self, shape: ESM2Shape) -> None:
        super().__init__()
        self.up = Linear(shape.dim, shape.feed_forward_dim)
        self.down = Linear(shape.feed_forward_dim, shape.dim)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Map (tokens, dim) to (tokens, dim), and add the result to the residual stream."""
        features = self.up.linear_gelu(hidden.to(self.up.weight.dtype))  # (tokens, feed_forward_dim)
        return self.down.add_residual(residual, features)


class ESM2Encoder(Encoder):
    """ESM-2's encoder: token embeddings, layers, a final LayerNorm; ESM-1b's and ESM-1v's by the settings of the shape.

    Attributes:
        positions: The vectors of learned positions; None where positions are rotary.
        embedding_norm: The LayerNorm before the first layer; None where there is none.
    """

    shape: ESM2Shape

    def __init__(self, shape: ESM2Shape) -> None:
        super().__init__(shape, len(TOKENS))
        self.positions = None
        if shape.num_positions is not None:
            rows = torch.empty(NUM_UNUSED_POSITIONS + shape.num_positions, shape.dim)
            self.positions = nn.Embedding.from_pretrained(rows, freeze=False)
        self.embedding_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS) if shape.has_embedding_norm else None
        self.layers = nn.ModuleList(
            Layer(shape.dim, SelfAttention(shape), FeedForward(shape)) for _ in range(shape.num_layers)
        )
        self.final_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)

    def embed(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Look up the tokens' vectors, add learned positions, and normalise, as far as the model does.

        Args:
            tokens: Token ids, (tokens,), int64.
            layout: Where each protein starts and ends; each has its own fraction of masks.

        Returns:
            The embeddings, (tokens, dim), float32.
        """
        vectors = cast("Tensor", self.embedding(tokens))
        if self.shape.has_token_dropout:
            vectors = vectors * self._token_dropout(tokens, layout)[:, None]
        if self.positions is not None:
            vectors = vectors + self.positions(layout.positions[: len(tokens)].long() + NUM_UNUSED_POSITIONS)
        return vectors if self.embedding_norm is None else self.embedding_norm(vectors)

    def _token_dropout(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Compute each token's factor, (tokens,): zero for `<mask>`, for the others one that makes up for the masks.

        Source: the published code of ESM-1b, ESM-1v and ESM-2, in evaluation too.
        """
        is_mask = tokens == MASK
        num_masked = F.pad(is_mask.cumsum(0), (1, 0))[layout.offsets].diff()  # (proteins,)
        fraction = num_masked / layout.offsets.diff()
        # A protein of masks alone has nothing to scale; zero divided by zero must not become NaN.
        scale = (1 - TRAINED_MASK_FRACTION) / (1 - fraction).where(fraction < 1, 1)
        return layout.per_token(scale) * ~is_mask
