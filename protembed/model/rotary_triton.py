"""The kernel of `rotary.py` for NVIDIA GPUs, in Triton: each number is read once and written once."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rotate(
    packed,
    query,
    key,
    value,
    cosine,
    sine,
    num_heads,
    head_dim,
    head_block: tl.constexpr,
    half_block: tl.constexpr,
    is_back: tl.constexpr,
):
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, column, half = tl.arange(0, head_block)[:, None], tl.arange(0, half_block)[None, :], head_dim // 2
    inside = (head < num_heads) & (column < half)
    first = head * head_dim + column
    alone = value
    if part == 0:
        alone = query
    if part == 1:
        alone = key
    alone += token * num_heads * head_dim + first
    joint = packed + (token * 3 + part) * num_heads * head_dim + first
    source, target = joint, alone
    if is_back:
        source, target = alone, joint
    x = tl.load(source, inside)
    y = tl.load(source + half, inside)
    if part < 2:
        cos = tl.load(cosine + token * head_dim + column, column < half)
        sin = tl.load(sine + token * half + column, column < half)
        if is_back:
            sin = -sin
        turned_x, turned_y = x * cos - y * sin, y * cos + x * sin  # in float32, as the angles
        x, y = turned_x.to(x.dtype), turned_y.to(y.dtype)
    tl.store(target, x, inside)
    tl.store(target + half, y, inside)


def _launch(packed: Tensor, parts: tuple[Tensor, Tensor, Tensor], cosine: Tensor, sine: Tensor, *, back: bool) -> None:
    num_tokens, _, num_heads, head_dim = packed.shape
    heads, half = triton.next_power_of_2(num_heads), triton.next_power_of_2(head_dim // 2)
    if num_tokens:
        _rotate[num_tokens, 3](packed, *parts, cosine, sine, num_heads, head_dim, heads, half, back)


def rotate(packed: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `rotary.rotate_packed`."""
    query, key, value = (torch.empty_like(part, memory_format=torch.contiguous_format) for part in packed.unbind(1))
    _launch(packed.contiguous(), (query, key, value), cosine.contiguous(), sine.contiguous(), back=False)
    return query, key, value


def rotate_backward(query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Compute `rotary.rotate_packed_backward`."""
    packed = query.new_empty(len(query), 3, *query.shape[1:])
    parts = (query.contiguous(), key.contiguous(), value.contiguous())
    _launch(packed, parts, cosine.contiguous(), sine.contiguous(), back=True)
    return packed
