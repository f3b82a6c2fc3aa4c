"""The encoder of ESM-2, written to be read from top to bottom.

Tokens of many proteins lie one after the other, `(tokens, dim)`; attention alone knows where a protein ends. Pre-LN
layers, rotary positions, exact GELU, LayerNorm with eps 1e-5, biases everywhere.

Source: Lin et al. 2023, "Evolutionary-scale prediction of atomic-level protein structure with a language model".
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from protembed.config.model_sizes import LAYER_NORM_EPS, ROTARY_BASE, EncoderShape
from protembed.data.alphabet import MASK, TOKENS
from protembed.device import has_varlen_attention, to_device
from protembed.model.onednn_linear import Linear, padding_for

INIT_STD = 0.02
# ESM-2 was trained with 15 % of the residues chosen and 80 % of those shown as <mask>; the constant stays what it was
# whatever mask rate is used here, or embeddings of published checkpoints would change their scale.
ESM2_MASK_FRACTION = 0.15 * 0.8


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """Where each protein of a packed batch lies, and the rotations of its positions.

    Attributes:
        offsets: (proteins + 1,), int64, on the tokens' device.
        lengths: tokens of each protein.
        num_padding: rows behind the tokens, in the layers alone; they belong to nobody.
        is_varlen: whether one kernel can mix all proteins at once, each by itself.
        cosine: (tokens + padding, 1, 1, head_dim), float32.
        sine: (tokens + padding, 1, 1, head_dim / 2), float32.
    """

    offsets: Tensor
    lengths: list[int]
    num_padding: int
    is_varlen: bool
    cosine: Tensor
    sine: Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens of all proteins."""
        return sum(self.lengths)

    def rotate(self, vectors: Tensor) -> Tensor:
        """Turn queries and keys by their positions, halves against halves.

        Args:
            vectors: (tokens, n, head, head_dim), with padding behind or without.

        Returns:
            The same shape and dtype.

        Source: Su et al. 2021, "RoFormer", section 3.2.2, in the half-split form of ESM-2.
        """
        first, second = vectors.chunk(2, dim=-1)
        cosine, sine = self.cosine[: len(vectors)], self.sine[: len(vectors)]
        turned = vectors * cosine
        middle = first.shape[-1]
        turned[..., :middle].addcmul_(second, sine, value=-1)
        turned[..., middle:].addcmul_(first, sine)
        return turned.to(vectors.dtype)

    def split(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Walk over the proteins: of each `(tokens, …)` tensor, with padding behind or without, the protein's part."""
        return zip(*(tensor[: self.num_tokens].split(self.lengths) for tensor in tensors), strict=True)

    def per_token(self, values: Tensor) -> Tensor:
        """Repeat one value per protein, (proteins,), for each of its tokens, (tokens,)."""
        return values.repeat_interleave(self.offsets.diff(), output_size=self.num_tokens)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mix the values of one protein's tokens: softmax(q · k / sqrt(head_dim)) · v in each head.

    Args:
        query: (length, head, head_dim).
        key: (length, head, head_dim).
        value: (length, head, head_dim).

    Returns:
        (length, head, head_dim).

    Source: Vaswani et al. 2017, equation 1.
    """
    # One call per protein: a block-diagonal mask over the whole micro-batch takes five times as long on a CPU.
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))  # (1, head, length, head_dim)
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


def attend_packed(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
    """Mix the values of each protein's tokens: arguments and result as for `attend`, (tokens, head, head_dim)."""
    if layout.is_varlen and query.dtype in (torch.bfloat16, torch.float16):
        # Here, for it loads torch's compiler, which takes as long as the rest of torch, and no CPU needs it.
        from torch.nn.attention.varlen import varlen_attn

        boundaries, longest = layout.offsets.int(), max(layout.lengths)
        mixed = varlen_attn(query, key, value, boundaries, boundaries, longest, longest)
        assert isinstance(mixed, Tensor)
        return mixed
    mixed_proteins = [attend(*protein) for protein in layout.split(query, key, value)]
    return torch.cat([*mixed_proteins, torch.zeros_like(value[layout.num_tokens :])])


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions over packed proteins.

    head_j(e_i, K, V) = Attention(W_Q^j e_i, W_K^j K, W_V^j V), concatenated over heads and projected by W_O. The rows
    of `project` are W_Q of all heads, then W_K, then W_V.

    Source: Vaswani et al. 2017, section 3.2; rotary positions: Su et al. 2021.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.project = Linear(shape.dim, 3 * shape.dim)
        self.output = Linear(shape.dim, shape.dim)

    def forward(self, hidden: Tensor, layout: PackedLayout, stream: Tensor) -> Tensor:
        """Mix the tokens of each protein with one another, and add that to the stream.

        Args:
            hidden: (tokens, dim), float32; the proteins of `layout` one after the other.
            layout: where each protein lies, and its rotations.
            stream: (tokens, dim), float32.

        Returns:
            (tokens, dim), float32.
        """
        query, key, value = self._project(hidden, layout)
        mixed = attend_packed(query, key, value, layout)  # (tokens, head, head_dim)
        return self.output.added_to(stream, mixed.flatten(1))

    def maps(self, hidden: Tensor, layout: PackedLayout) -> list[Tensor]:
        """Return the attention weights themselves, one (head, length, length) tensor per protein; rows sum to one."""
        query, key, _ = self._project(hidden, layout)
        scale = 1 / math.sqrt(query.shape[-1])
        return [
            torch.softmax(torch.einsum("qhd,khd->hqk", query_part * scale, key_part), dim=-1)
            for query_part, key_part in layout.split(query, key)
        ]

    def _project(self, hidden: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor, Tensor]:
        projected = self.project(hidden.to(self.project.weight.dtype))
        projected = projected.unflatten(-1, (3, self.num_heads, -1))  # (tokens, 3, head, head_dim)
        query, key = layout.rotate(projected[:, :2]).unbind(1)
        return query, key, projected[:, 2]


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them, token by token."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.expand = Linear(shape.dim, 4 * shape.dim)
        self.contract = Linear(4 * shape.dim, shape.dim)

    def forward(self, hidden: Tensor, stream: Tensor) -> Tensor:
        """Map (tokens, dim) to (tokens, dim), and add that to the stream."""
        features = self.expand.linear_gelu(hidden.to(self.expand.weight.dtype))
        return self.contract.added_to(stream, features)


class Layer(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy of the stream and adds to it (pre-LN)."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)
        self.attention = SelfAttention(shape)
        self.feed_forward_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(shape)

    def forward(self, hidden: Tensor, layout: PackedLayout) -> Tensor:
        """Map (tokens, dim) to (tokens, dim)."""
        hidden = self.attention(self.attention_norm(hidden), layout, hidden)
        return cast("Tensor", self.feed_forward(self.feed_forward_norm(hidden), hidden))


class Encoder(nn.Module):
    """ESM-2's encoder: token embeddings, layers, a final LayerNorm.

    Args:
        shape: layers, width and heads.

    Attributes:
        shape: layers, width and heads.
        recomputes_layers: whether a layer's inner values are computed again for its gradients instead of being kept:
            less memory, a third more work.
    """

    inverse_frequencies: Tensor

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.gradient_checkpointing = False
        # Without the constructor's random numbers, which nobody keeps: on the meta device, where a checkpoint's modules
        # are made, drawing them loads torch's compiler, a second of every command.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(len(TOKENS), shape.dim), freeze=False)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.final_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)
        self.register_buffer("inverse_frequencies", inverse_frequencies(shape), persistent=False)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Compute the layers' matrix products and attention in a dtype from now on, in place.

        What flows from layer to layer stays in float32: trained encoders have values of some hundreds there, where
        half precision would lose what the layers add.
        """
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)

    def layout(self, offsets: Tensor) -> PackedLayout:
        """Prepare what every layer needs to know about a batch.

        Args:
            offsets: (proteins + 1,), int64 on the CPU; where each protein begins and the last one ends.
        """
        device, lengths = self.inverse_frequencies.device, offsets.diff()
        starts = offsets[:-1].repeat_interleave(lengths)
        positions = torch.arange(len(starts)) - starts  # 0 at each protein's start
        num_padding = padding_for(len(starts), device)
        positions = F.pad(positions, (0, num_padding))
        positions = to_device(positions.to(self.inverse_frequencies.dtype), device)
        angles = (positions[:, None] * self.inverse_frequencies)[:, None, None]  # (tokens, 1, 1, head_dim / 2)
        cosine = angles.cos()
        return PackedLayout(
            offsets=to_device(offsets, device),
            lengths=lengths.tolist(),
            num_padding=num_padding,
            is_varlen=has_varlen_attention(device),
            cosine=torch.cat((cosine, cosine), dim=-1),
            sine=angles.sin(),
        )

    def embed(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Look up the tokens' vectors; `<mask>` has none, and the others are scaled by how many are hidden.

        Args:
            tokens: (tokens,), int64.
            layout: where each protein lies; the share of hidden tokens is its own.

        Returns:
            (tokens, dim), float32.

        Source: ESM-2's "token dropout" (Lin et al. 2023, and the published code), in evaluation too.
        """
        is_hidden = tokens == MASK
        num_hidden = F.pad(is_hidden.cumsum(0), (1, 0))[layout.offsets].diff()  # (proteins,)
        share = num_hidden / layout.offsets.diff()
        # Where all is hidden there is nothing to scale; zero divided by zero must not become NaN.
        scale = (1 - ESM2_MASK_FRACTION) / (1 - share).where(share < 1, 1)
        scale = layout.per_token(scale) * ~is_hidden
        return cast("Tensor", self.embedding(tokens)) * scale[:, None]

    def hidden_states(self, tokens: Tensor, layout: PackedLayout) -> Iterator[Tensor]:
        """Yield the embedding and each layer's output, (tokens, dim); the last one has passed the final LayerNorm."""
        hidden = F.pad(self.embed(tokens, layout), (0, 0, 0, layout.num_padding))
        for layer in self.layers:
            yield hidden[: layout.num_tokens]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, layout, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = layer(hidden, layout)
        yield self.final_norm(hidden[: layout.num_tokens])

    def forward(self, tokens: Tensor, layout: PackedLayout, layer: int | None = None) -> Tensor:
        """Represent each token in its context.

        Args:
            tokens: (tokens,), int64; the proteins one after the other.
            layout: where each protein lies, from `Encoder.layout`.
            layer: whose output, from 0 (the embedding) to the number of layers; None is the last.

        Returns:
            (tokens, dim), float32.
        """
        wanted = self.shape.num_layers if layer is None else layer
        assert 0 <= wanted <= self.shape.num_layers
        return next(hidden for number, hidden in enumerate(self.hidden_states(tokens, layout)) if number == wanted)

    def attention_maps(self, tokens: Tensor, layout: PackedLayout) -> Iterator[list[Tensor]]:
        """Yield each layer's attention weights: one (head, length, length) tensor per protein, special tokens too."""
        # The layers come first: when they are exhausted, the last hidden state is not asked for.
        for layer, hidden in zip(self.layers, self.hidden_states(tokens, layout), strict=False):
            assert isinstance(layer, Layer)
            yield layer.attention.maps(layer.attention_norm(hidden), layout)


def inverse_frequencies(shape: EncoderShape) -> Tensor:
    """Compute the rotary frequencies of a head's pairs of coordinates, (head_dim / 2,), float32."""
    head_dim = shape.dim // shape.num_heads
    # On the CPU also while modules are made on the meta device, whose arithmetic loads torch's compiler.
    return 1.0 / ROTARY_BASE ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)


def initialise(module: nn.Module, how: Literal["gaussian", "uniform"], generator: torch.Generator) -> None:
    """Set every parameter of a module to its starting value, in place.

    Bias vectors are zero; weight matrices and embeddings are Gaussian with standard deviation 0.02, or uniform with the
    same standard deviation; LayerNorm gammas are one, betas zero. An embedding's standard deviation of one would make
    the first loss enormous, since the LM head is tied to it.

    Args:
        module: an encoder or a head.
        how: the distribution of the matrices.
        generator: the random numbers, on the CPU.
    """
    half_width = INIT_STD * math.sqrt(3)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        elif isinstance(part, nn.Linear | nn.Embedding):
            if how == "gaussian":
                nn.init.normal_(part.weight, std=INIT_STD, generator=generator)
            else:
                nn.init.uniform_(part.weight, -half_width, half_width, generator=generator)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
