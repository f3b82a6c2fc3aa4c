"""Rotary positions as one operator with an explicit backward pass, for GPUs.

Of rotations that are written as products and sums, autograd keeps copies in float32 and adds slices that are mostly
zero: half of all memory traffic between the matrix products of a training in bfloat16 (benchmarks/README.md). CPUs
compute `PackedLayout.rotate`, so that their results keep their bits.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Rotated = tuple[Tensor, Tensor, Tensor]


def _turn(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the halves of the last dimension against each other; compute in float32 at least."""
    first, second = vectors.chunk(2, dim=-1)
    cosine = cosine[..., : first.shape[-1]]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(vectors.dtype)


@torch.library.custom_op("protembed::rotate_packed", mutates_args=(), device_types=None)
def rotate_packed(packed: Tensor, cosine: Tensor, sine: Tensor) -> Rotated:
    """Rotate queries and keys by the angles of their positions, and separate them from the values.

    Args:
        packed: Queries, keys and values, (tokens, 3, head, head_dim), in any floating dtype.
        cosine: Cosines of the angles, (tokens, 1, 1, head_dim), the halves equal.
        sine: Sines of the angles, (tokens, 1, 1, head_dim / 2).

    Returns:
        Rotated queries, rotated keys, and a copy of the values, (tokens, head, head_dim) each, dtype of `packed`.

    Source: Su et al. 2021, "RoFormer", section 3.2.2, in the half-split form of ESM-2.
    """
    query, key, value = packed.unbind(1)
    cosine, sine = cosine[:, 0], sine[:, 0]
    return _turn(query, cosine, sine), _turn(key, cosine, sine), value.clone(memory_format=torch.contiguous_format)


@torch.library.custom_op("protembed::rotate_packed_backward", mutates_args=(), device_types=None)
def rotate_packed_backward(query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the gradients of queries and keys by the negative angles, and write one gradient of all three.

    The gradients are (tokens, head, head_dim) each, the result is (tokens, 3, head, head_dim); angles as above.
    """
    cosine, sine = cosine[:, 0], sine[:, 0]
    return torch.stack((_turn(query, cosine, -sine), _turn(key, cosine, -sine), value), dim=1)


@rotate_packed.register_fake
def _fake_rotated(packed: Tensor, cosine: Tensor, sine: Tensor) -> Rotated:
    query, key, value = (packed.new_empty(part.shape) for part in packed.unbind(1))
    return query, key, value


@rotate_packed_backward.register_fake
def _fake_gradient(query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    num_tokens, num_heads, head_dim = query.shape
    return query.new_empty(num_tokens, 3, num_heads, head_dim)


def _keep_angles(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Rotated) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None, None]:
    return rotate_packed_backward(query, key, value, *ctx.saved_tensors), None, None


rotate_packed.register_autograd(_backward, setup_context=_keep_angles)

if find_spec("triton") is not None:
    from protembed.model import rotary_triton

    rotate_packed.register_kernel("cuda")(rotary_triton.rotate)
    rotate_packed_backward.register_kernel("cuda")(rotary_triton.rotate_backward)
