"""What the encoders of the ESM family share: packed batches, rotary positions, attention, the walk through the layers.

The tokens of all proteins lie one after the other, `(tokens, dim)`; only attention needs to know where a protein ends.
The engine, the training loop, LoRA, scores and attention maps need of an encoder what `Encoder` has, and nothing else.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from protembed.config.model_sizes import LAYER_NORM_EPS, ROTARY_BASE, EncoderShape
from protembed.data.alphabet import NUM_SPECIAL_TOKENS
from protembed.device import has_varlen_attention, to_device
from protembed.errors import ConfigError
from protembed.model.onednn_linear import padding_for

INIT_STD = 0.02
# Of the attention of a query in bfloat16 on a CPU with AVX-512: exponentials that are taken at once; and scores that a
# mask may cover before it costs more than a single exponential.
_SCORES_AT_ONCE, _SCORES_PER_SINGLE_ONE = 16, 85
_WITHOUT_ROTARY_OPERATOR = ("cpu", "mps")


def inverse_frequencies(shape: EncoderShape) -> Tensor:
    """Compute the rotary frequencies of a head's pairs of coordinates, (head_dim / 2,), float32."""
    head_dim = shape.head_dim
    # On the CPU even while modules are made on the meta device, whose arithmetic loads torch's compiler.
    return 1.0 / ROTARY_BASE ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)


def initialise(module: nn.Module, how: Literal["gaussian", "uniform"], generator: torch.Generator) -> None:
    """Set every parameter of an encoder or a head to its initial value, in place, with random numbers from the CPU.

    Bias vectors are zero; weight matrices and embeddings are Gaussian with standard deviation 0.02, or uniform with the
    same standard deviation; LayerNorm gammas are one, betas zero. An embedding's standard deviation of one would make
    the first loss enormous, because the LM head is tied to it.
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
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """Where each protein of a packed batch starts and ends, and the rotary angles of its positions.

    Attributes:
        offsets: The first token of each protein, and the end of the last one: (proteins + 1,), int64, on the tokens'
            device.
        boundaries: The same as int32, as the kernel for all proteins takes it.
        lengths: The number of tokens of each protein.
        longest: The largest of these numbers, or more.
        num_padding: The number of rows after the tokens, inside the layers only; they belong to no protein.
        is_varlen: Whether one kernel can compute the attention of all proteins at once.
        positions: The position of each token in its protein or window, from 0: (tokens + padding,), float32.
        cosine: Cosines of the rotary angles, (tokens + padding, 1, 1, head_dim), float32.
        sine: Sines of the rotary angles, (tokens + padding, 1, 1, head_dim / 2), float32.
        is_fixed: Whether other layouts have the same shapes and the same `longest`, so that layers may be compiled.
        dtype: The dtype of the layers' matrices.
    """

    offsets: Tensor
    boundaries: Tensor
    lengths: list[int]
    longest: int
    num_padding: int
    is_varlen: bool
    positions: Tensor
    cosine: Tensor
    sine: Tensor
    is_fixed: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all proteins."""
        return sum(self.lengths)

    def rotate(self, vectors: Tensor) -> Tensor:
        """Rotate queries and keys by the angles of their positions, one half of a head against the other.

        They are (tokens, n, head, head_dim), with or without padding at the end.

        Source: Su et al. 2021, "RoFormer", section 3.2.2, in the half-split form of ESM-2.
        """
        cosine, sine = self.cosine[: len(vectors)], self.sine[: len(vectors)]
        if vectors.dtype == torch.float32 or vectors.device.type != "cpu":
            return _rotate(vectors, cosine, sine)
        # On a CPU, operators on two dtypes use no vector instructions, and attention reads one head after the other.
        by_head = vectors.movedim(0, -2).to(torch.float32, memory_format=torch.contiguous_format)
        rotated = _rotate(by_head, cosine[:, 0, 0], sine[:, 0, 0])  # (n, head, tokens, head_dim)
        return rotated.to(vectors.dtype).movedim(-2, 0)

    def rotate_packed(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotate queries and keys, and separate them and the values: (tokens, 3, head, head_dim) to three times one."""
        if packed.device.type in _WITHOUT_ROTARY_OPERATOR:
            query, key = self.rotate(packed[:, :2]).unbind(1)
            return query, key, packed[:, 2]
        # Imported here because its first call loads torch's compiler, which other devices do not need.
        from protembed.model.rotary import rotate_packed

        query, key, value = rotate_packed(packed, self.cosine[: len(packed)], self.sine[: len(packed)])
        return query, key, value

    def split(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield the rows of each protein from each tensor, (tokens, …), with or without padding at the end."""
        return zip(*(tensor[: self.num_tokens].split(self.lengths) for tensor in tensors), strict=True)

    def per_token(self, values: Tensor) -> Tensor:
        """Repeat one value per protein, (proteins,), for each of its tokens, (tokens,)."""
        return values.repeat_interleave(self.offsets.diff(), output_size=self.num_tokens)

    def select(self, indices: Tensor) -> "SelectedTokens":
        """Select tokens by their indices among all tokens, (selected,), int64, ascending, on the CPU."""
        # From the lengths, because reading the offsets would wait for the GPU.
        offsets = torch.searchsorted(indices, F.pad(torch.tensor(self.lengths).cumsum(0), (1, 0)))
        padded = F.pad(indices, (0, padding_for(len(indices), self.offsets.device, self.dtype)))
        lengths = offsets.diff().tolist()
        return SelectedTokens(
            rows=to_device(padded, self.offsets.device),
            boundaries=to_device(offsets.int(), self.offsets.device),
            lengths=lengths,
            longest=self.longest if self.is_fixed else max(lengths),
        )


@dataclass(frozen=True, kw_only=True)
class SelectedTokens:
    """The tokens of a packed batch whose last hidden states are computed, where not all of them are needed.

    Attributes:
        rows: The index of each token among all tokens, (selected + padding,), int64; the padding repeats the first one.
        boundaries: The first selected token of each protein, and the end of the last one: (proteins + 1,), int32.
        lengths: The number of selected tokens of each protein.
        longest: The largest of these numbers, or more.
    """

    rows: Tensor
    boundaries: Tensor
    lengths: list[int]
    longest: int

    @property
    def num_tokens(self) -> int:
        """The number of selected tokens of all proteins."""
        return sum(self.lengths)


def _rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the halves of the last dimension against each other, in the dtype of the vectors."""
    first, second = vectors.chunk(2, dim=-1)
    rotated = vectors * cosine
    middle = first.shape[-1]
    rotated[..., :middle].addcmul_(second, sine, value=-1)
    rotated[..., middle:].addcmul_(first, sine)
    return rotated.to(vectors.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mix the values of one protein's tokens: softmax(q · k / sqrt(head_dim)) · v in each head.

    Keys and values are (length, head, head_dim); queries and the result are that too, or those of some tokens only.

    Source: Vaswani et al. 2017, equation 1.
    """
    # One call per protein: a block-diagonal mask over the whole micro-batch takes five times as long on a CPU.
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))  # (1, head, length, head_dim)
    num_padding, mask = key_padding(query), None
    if num_padding:
        key, value = (F.pad(tensor, (0, 0, 0, num_padding)) for tensor in (key, value))
        mask = query.new_zeros(key.shape[2])
        mask[-num_padding:] = -math.inf
        mask = mask.expand(1, 1, query.shape[2], -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[0].transpose(0, 1)


def key_padding(query: Tensor) -> int:
    """Count the keys that are added, and masked, to compute attention faster in half precision on a CPU.

    Torch takes the exponentials of 16 scores of a query at a time, and the rest one by one; masks cost a little for
    each score (benchmarks/README.md). The argument is (…, length, head_dim).
    """
    length = query.shape[-2]
    num_single = length % _SCORES_AT_ONCE
    is_faster = num_single * _SCORES_PER_SINGLE_ONE > length
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or torch.is_grad_enabled() or not is_faster:
        return 0
    return _SCORES_AT_ONCE - num_single


def attend_packed(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, selected: SelectedTokens | None = None
) -> Tensor:
    """Mix the values of each protein's tokens with `attend`, for all proteins of a batch.

    Args:
        query: Queries of all tokens, (tokens + padding, head, head_dim).
        key: Keys, shape of `query`.
        value: Values, shape of `query`.
        layout: Where each protein starts and ends.
        selected: The tokens that attend; None for all.

    Returns:
        The mixed values of the tokens that attend, (tokens + padding, head, head_dim) or (selected + padding, …); zero
        in the padding.
    """
    asking = layout if selected is None else selected
    if selected is not None:
        query = query[selected.rows]  # (selected + padding, head, head_dim)
    if not len(query):
        return query
    if layout.is_varlen and query.dtype in (torch.bfloat16, torch.float16):
        # Imported here because it loads torch's compiler, which doubles the import time and is not needed on CPUs.
        from torch.nn.attention.varlen import varlen_attn

        # Asked once for all layers; and torch's compiler would make a graph for each number of proteins in a list.
        boundaries = asking.boundaries, layout.boundaries
        mixed = varlen_attn(query, key, value, *boundaries, asking.longest, layout.longest)
        assert isinstance(mixed, Tensor)
        return mixed
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Training in bfloat16. With gradients, attention in bfloat16 takes CPUs twice as long as in float32
        # (benchmarks/README.md): its inner products are over the width of a head.
        with torch.autocast("cpu", enabled=False):
            return _attend_each(query.float(), key.float(), value.float(), layout, asking)
    return _attend_each(query, key, value, layout, asking)


def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, asking: PackedLayout | SelectedTokens
) -> Tensor:
    """Mix the values of each protein's tokens with `attend`, one protein after the other."""
    queries = query[: asking.num_tokens].split(asking.lengths)
    mixed_proteins = [
        attend(protein, *others)
        for protein, others in zip(queries, layout.split(key, value), strict=True)
        if len(protein)
    ]
    return torch.cat([*mixed_proteins, torch.zeros_like(query[asking.num_tokens :])])


def attention_weights(query: Tensor, key: Tensor, layout: PackedLayout) -> list[Tensor]:
    """Compute softmax(q · k / sqrt(head_dim)) of each protein, (head, length, length); each row sums to one.

    Queries and keys are (tokens + padding, head, head_dim).
    """
    scale = 1 / math.sqrt(query.shape[-1])
    return [
        torch.softmax(torch.einsum("qhd,khd->hqk", protein_query * scale, protein_key), dim=-1)
        for protein_query, protein_key in layout.split(query, key)
    ]


class AttentionBlock(nn.Module, ABC):
    """The attention of a layer: each architecture projects tokens to queries, keys and values in its way."""

    @abstractmethod
    def forward(
        self, hidden: Tensor, layout: PackedLayout, residual: Tensor, selected: SelectedTokens | None = None
    ) -> Tensor:
        """Mix the tokens of each protein with one another, and add the result to the residual stream.

        Args:
            hidden: Normalised hidden states of all proteins one after the other, (tokens, dim), float32.
            layout: Where each protein starts and ends, and the rotary angles of each token's position in it.
            residual: The residual stream, (tokens, dim), float32; (selected, dim) where tokens are selected.
            selected: The tokens that attend to the others; None for all.

        Returns:
            The new residual stream, shape of `residual`, float32.
        """

    @abstractmethod
    def project(self, hidden: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values, (tokens, head, head_dim) each, with their positions, from `hidden`."""

    def attention_weights(self, hidden: Tensor, layout: PackedLayout) -> list[Tensor]:
        """Compute the attention weights, one (head, length, length) tensor per protein; each row sums to one."""
        query, key, _ = self.project(hidden, layout)
        return attention_weights(query, key, layout)


class Layer(nn.Module):
    """Attention, then feed-forward; each reads a normalised copy of the residual stream and adds to it (pre-LN).

    Args:
        dim: The width of the residual stream.
        attention: The attention of the architecture.
        feed_forward: Its feed-forward part: maps normalised states and the residual stream, (tokens, dim) each, to the
            new residual stream.

    Attributes:
        compiled: `compute` as compiled for layouts that are fixed; None computes them as all others.
    """

    def __init__(self, dim: int, attention: AttentionBlock, feed_forward: nn.Module) -> None:
        super().__init__()
        self.compiled: Callable[[Layer, Tensor, PackedLayout, SelectedTokens | None], Tensor] | None = None
        self.attention_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = attention
        self.feed_forward_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.feed_forward = feed_forward

    def forward(self, hidden: Tensor, layout: PackedLayout, selected: SelectedTokens | None = None) -> Tensor:
        """Map (tokens + padding, dim) to the same, or to (selected + padding, dim) where tokens are selected."""
        if self.compiled is not None and layout.is_fixed:
            return self.compiled(self, hidden, layout, selected)
        return self.compute(hidden, layout, selected)

    def compute(self, hidden: Tensor, layout: PackedLayout, selected: SelectedTokens | None = None) -> Tensor:
        """Compute `forward` with torch's operators."""
        residual = hidden if selected is None else hidden[selected.rows]
        hidden = self.attention(self.attention_norm(hidden), layout, residual, selected)
        return cast("Tensor", self.feed_forward(self.feed_forward_norm(hidden), hidden))

    def attention_weights(self, hidden: Tensor, layout: PackedLayout) -> list[Tensor]:
        """Compute each protein's attention weights, (head, length, length), from the layer's input, (tokens, dim)."""
        return self.attention.attention_weights(self.attention_norm(hidden), layout)


class Encoder(nn.Module, ABC):
    """What every encoder of the ESM family is: token embeddings, layers, a final LayerNorm.

    A subclass makes the layers, and says how tokens are embedded.

    Args:
        shape: The shape of the encoder.
        num_rows: The number of rows of the embedding, at least one for each token of the alphabet.

    Attributes:
        embedding: The vectors of tokens.
        layers: The layers, each a `Layer`.
        final_norm: The LayerNorm after the last layer.
        gradient_checkpointing: Whether the activations of a layer are recomputed for its gradients instead of stored:
            less memory, a third more work.
    """

    inverse_frequencies: Tensor
    layers: nn.ModuleList
    final_norm: nn.LayerNorm

    def __init__(self, shape: EncoderShape, num_rows: int) -> None:
        super().__init__()
        self.shape = shape
        self.gradient_checkpointing = False
        # Without the constructor's random numbers, which would be overwritten: on the meta device, where a checkpoint's
        # modules are made, drawing them loads torch's compiler, which takes a second of every command.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(num_rows, shape.dim), freeze=False)
        self.register_buffer("inverse_frequencies", inverse_frequencies(shape), persistent=False)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Set the dtype of the layers' matrix products and attention, in place.

        The residual stream stays in float32: trained encoders have values of some hundreds there, and half precision
        would lose what the layers add.
        """
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)

    def layout(self, offsets: Tensor, longest: int | None = None) -> PackedLayout:
        """Prepare what every layer needs to know about a batch.

        Args:
            offsets: The first token of each protein, and the end of the last one: (proteins + 1,), int64, on the CPU.
            longest: The largest number of tokens of a protein in all batches, if they have one shape; else None.

        Raises:
            ConfigError: A protein or window has more residues than the encoder has learned positions for.
        """
        device, lengths = self.inverse_frequencies.device, offsets.diff()
        self._check_lengths(lengths)
        starts = offsets[:-1].repeat_interleave(lengths)
        positions = torch.arange(len(starts)) - starts  # 0 at each protein's start
        dtype = next(weight.dtype for weight in self.layers.parameters() if weight.ndim > 1)
        num_padding = padding_for(len(starts), device, dtype)
        positions = F.pad(positions, (0, num_padding))
        positions = to_device(positions.to(self.inverse_frequencies.dtype), device)
        angles = (positions[:, None] * self.inverse_frequencies)[:, None, None]  # (tokens, 1, 1, head_dim / 2)
        cosine = angles.cos()
        return PackedLayout(
            offsets=to_device(offsets, device),
            boundaries=to_device(offsets.int(), device),
            lengths=lengths.tolist(),
            longest=int(lengths.max()) if longest is None else longest,
            num_padding=num_padding,
            is_varlen=has_varlen_attention(device, head_dim=2 * len(self.inverse_frequencies)),
            positions=positions,
            cosine=torch.cat((cosine, cosine), dim=-1),
            sine=angles.sin(),
            is_fixed=longest is not None,
            dtype=dtype,
        )

    def _check_lengths(self, lengths: Tensor) -> None:
        longest, longest_known = int(lengths.max()), self.shape.max_residues
        if longest_known is not None and longest > longest_known + NUM_SPECIAL_TOKENS:
            expected = (
                f"this model has learned positions for up to {longest_known:,} residues; "
                "longer proteins are computed in windows of at most that length"
            )
            raise ConfigError("window_residues", longest - NUM_SPECIAL_TOKENS, expected)

    @abstractmethod
    def embed(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Look up the tokens' vectors.

        Args:
            tokens: Token ids, (tokens,), int64.
            layout: Where each protein starts and ends.

        Returns:
            The embeddings, (tokens, dim), float32.
        """

    def hidden_states(
        self, tokens: Tensor, layout: PackedLayout, selected: SelectedTokens | None = None
    ) -> Iterator[Tensor]:
        """Yield the embedding and each layer's output, (tokens, dim); the last one has passed the final LayerNorm.

        Args:
            tokens: Token ids of all proteins one after the other, (tokens,), int64.
            layout: Where each protein starts and ends, from `Encoder.layout`.
            selected: The tokens of which the last layer's output is computed, from `PackedLayout.select`; None for all.

        Yields:
            The hidden states, (tokens, dim), float32; the last ones are (selected, dim) where tokens are selected.

        Raises:
            ConfigError: The tokens are not those of the layout, one after the other.
        """
        if tokens.shape != (layout.num_tokens,):
            expected = (
                f"the {layout.num_tokens:,} tokens of the layout are expected one after the other, without padding"
            )
            raise ConfigError("tokens", f"a tensor of shape {tuple(tokens.shape)}", expected)
        hidden = F.pad(self.embed(tokens, layout), (0, 0, 0, layout.num_padding))
        for number, layer in enumerate(self.layers, start=1):
            yield hidden[: layout.num_tokens]
            arguments = (hidden, layout, selected if number == len(self.layers) else None)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = layer(*arguments)
        yield self.final_norm(hidden[: (selected or layout).num_tokens])

    def forward(
        self, tokens: Tensor, layout: PackedLayout, layer: int | None = None, selected: SelectedTokens | None = None
    ) -> Tensor:
        """Represent each token in its context.

        Args:
            tokens: Token ids of all proteins one after the other, (tokens,), int64.
            layout: Where each protein starts and ends, from `Encoder.layout`.
            layer: The layer whose output is returned, from 0 (the embedding) to the number of layers; None is the last.
            selected: The tokens of which the last layer's output is computed, from `PackedLayout.select`; None for all.

        Returns:
            The hidden states, (tokens, dim), float32; (selected, dim) in the last layer where tokens are selected.

        Raises:
            ConfigError: There is no such layer, or the tokens are not those of the layout.

        >>> from protembed.config.model_sizes import ESM2Shape
        >>> from protembed.data.alphabet import MASK
        >>> from protembed.model.esm2 import ESM2Encoder
        >>> encoder = ESM2Encoder(ESM2Shape(num_layers=2, dim=32, num_heads=4))
        >>> layout = encoder.layout(torch.tensor([0, 5, 12]))  # proteins of 5 and 7 tokens
        >>> encoder(torch.full((12,), MASK), layout).shape
        torch.Size([12, 32])
        """
        requested = self.shape.num_layers if layer is None else layer
        if not 0 <= requested <= self.shape.num_layers:
            expected = f"0 (the embedding) to {self.shape.num_layers} (the last layer) are expected"
            raise ConfigError("layer", layer, expected)
        return next(
            hidden for number, hidden in enumerate(self.hidden_states(tokens, layout, selected)) if number == requested
        )

    def attention_maps(self, tokens: Tensor, layout: PackedLayout) -> Iterator[list[Tensor]]:
        """Yield each layer's attention weights: one (head, length, length) tensor per protein, special tokens too."""
        # The layers come first: once they are exhausted, the last hidden state is not computed.
        for layer, hidden in zip(self.layers, self.hidden_states(tokens, layout), strict=False):
            assert isinstance(layer, Layer)
            yield layer.attention_weights(hidden, layout)
