"""Attention over all proteins of a batch in one operator, in place of the kernel that CPUs do not have."""

import pytest
import torch
from torch.nn.attention import varlen

from protembed.model import encoder


def _rows(by_query, by_key, query_boundaries, boundaries):
    """The rows of each protein that has queries: of tensors of the queries, and of tensors of the keys.

    On a CPU, padding follows them.
    """
    counts, lengths = query_boundaries.diff().tolist(), boundaries.diff().tolist()
    queries = zip(*(tensor[: sum(counts)].split(counts) for tensor in by_query), strict=True)
    keys = zip(*(tensor[: sum(lengths)].split(lengths) for tensor in by_key), strict=True)
    return [rows for rows in zip(queries, keys, strict=True) if len(rows[0][0])]


def _by_head(*tensors):
    return [tensor.float().transpose(0, 1) for tensor in tensors]  # (head, rows, head_dim)


def _weights(query, key):
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)


@torch.library.custom_op("protembed_test::attend_all", mutates_args=())
def attend_all(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_boundaries: torch.Tensor,
    boundaries: torch.Tensor,
) -> torch.Tensor:
    mixed = torch.zeros_like(query, memory_format=torch.contiguous_format)
    for (q, result), (k, v) in _rows((query, mixed), (key, value), query_boundaries, boundaries):
        q, k, v = _by_head(q, k, v)
        result.copy_((_weights(q, k) @ v).transpose(0, 1))
    return mixed


@attend_all.register_fake
def _(query, key, value, query_boundaries, boundaries):
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@torch.library.custom_op("protembed_test::attend_all_backward", mutates_args=())
def attend_all_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_boundaries: torch.Tensor,
    boundaries: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    of_query, of_key, of_value = (
        torch.zeros_like(part, memory_format=torch.contiguous_format) for part in (query, key, value)
    )
    for (q, g, to_q), (k, v, to_k, to_v) in _rows(
        (query, gradient, of_query), (key, value, of_key, of_value), query_boundaries, boundaries
    ):
        q, g, k, v = _by_head(q, g, k, v)
        weights = _weights(q, k)
        of_weights = g @ v.mT
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) / q.shape[-1] ** 0.5
        to_q.copy_((of_scores @ k).transpose(0, 1))
        to_k.copy_((of_scores.mT @ q).transpose(0, 1))
        to_v.copy_((weights.mT @ g).transpose(0, 1))
    return of_query, of_key, of_value


@attend_all_backward.register_fake
def _(gradient, query, key, value, query_boundaries, boundaries):
    return tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in (query, key, value))


def _keep_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, gradient):
    return *attend_all_backward(gradient, *ctx.saved_tensors), None, None


attend_all.register_autograd(_backward, setup_context=_keep_inputs)


@pytest.fixture
def varlen_attention(monkeypatch):
    """Let the encoder compute rotary positions and attention in one operator each, in bfloat16, as on NVIDIA GPUs."""
    monkeypatch.setattr(encoder, "_WITHOUT_ROTARY_OPERATOR", ())
    monkeypatch.setattr(encoder, "has_varlen_attention", lambda *_, **__: True)
    monkeypatch.setattr(
        varlen, "varlen_attn", lambda query, key, value, first, second, *_: attend_all(query, key, value, first, second)
    )
