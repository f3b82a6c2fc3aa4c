"""The rotary operator of GPUs, and the bytes that a layer moves in training with it."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from protembed.config.model_sizes import ESM2Shape
from protembed.model import esm2
from protembed.model.encoder import PackedLayout
from protembed.model.esm2 import ESM2Encoder
from protembed.model.rotary import rotate_packed, rotate_packed_backward


def angles_of(num_tokens, head_dim, dtype=torch.float32):
    angles = torch.rand(num_tokens, 1, 1, head_dim // 2, generator=torch.Generator().manual_seed(1), dtype=dtype) * 50
    return torch.cat((angles.cos(), angles.cos()), dim=-1), angles.sin()


def packed_of(num_tokens, num_heads, head_dim, dtype=torch.float32):
    return torch.randn(num_tokens, 3, num_heads, head_dim, generator=torch.Generator().manual_seed(0)).to(dtype)


def tolerance_of(dtype):
    return {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.01, "atol": 0.01}


def test_gradients_of_the_operator_are_right_in_float64():
    packed = packed_of(5, 2, 8, torch.float64).requires_grad_()

    assert torch.autograd.gradcheck(rotate_packed, (packed, *angles_of(5, 8, torch.float64)))


@pytest.mark.parametrize(("num_tokens", "dtype"), [(5, torch.float32), (5, torch.bfloat16), (1, torch.float32)])
def test_the_operator_is_registered_as_torch_requires(num_tokens, dtype):
    packed = packed_of(num_tokens, 2, 8, dtype).requires_grad_()
    gradients = [part.detach().contiguous() for part in packed.unbind(1)]

    torch.library.opcheck(rotate_packed, (packed, *angles_of(num_tokens, 8)))
    torch.library.opcheck(rotate_packed_backward, (*gradients, *angles_of(num_tokens, 8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_equals_the_rotation_that_cpus_compute(tiny_encoder, dtype):
    layout = tiny_encoder.layout(torch.tensor([0, 5, 12]))
    reference = packed_of(12, 4, 8, dtype).requires_grad_()
    packed = reference.detach().clone().requires_grad_()

    expected = layout.rotate_packed(reference)
    computed = rotate_packed(packed, layout.cosine, layout.sine)
    weights = torch.randn(3, 12, 4, 8, generator=torch.Generator().manual_seed(2)).to(dtype)
    for parts in (expected, computed):
        sum((part * weight).float().sum() for part, weight in zip(parts, weights, strict=True)).backward()

    tolerance = tolerance_of(dtype)
    torch.testing.assert_close(list(computed), list(expected), **tolerance)
    torch.testing.assert_close(packed.grad, reference.grad, **tolerance)


INTERPRETED = """
import torch
from protembed.model import rotary_triton
from protembed.model.rotary import rotate_packed, rotate_packed_backward
from test_rotary_operator import angles_of, packed_of, tolerance_of

for num_tokens, num_heads, head_dim, dtype in CASES:
    packed, angles = packed_of(num_tokens, num_heads, head_dim, dtype), angles_of(num_tokens, head_dim)
    tolerance = tolerance_of(dtype)
    expected = rotate_packed(packed, *angles)
    torch.testing.assert_close(rotary_triton.rotate(packed, *angles), expected, **tolerance)
    back = rotate_packed_backward(*expected, *angles)
    torch.testing.assert_close(rotary_triton.rotate_backward(*expected, *angles), back, **tolerance)
    assert (back - packed).abs().max() < 0.05
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which torch for CPUs does not bring")
@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_the_triton_kernel_equals_the_operator_in_tritons_interpreter(dtype):
    shapes = [(5, 4, 16), (3, 5, 24), (1, 2, 6)]
    cases = ", ".join(f"({tokens}, {heads}, {dim}, {dtype})" for tokens, heads, dim in shapes)
    script = INTERPRETED.replace("CASES", f"[{cases}]")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.path.dirname(__file__)}

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)

    assert result.returncode == 0, result.stderr


COMPUTED_ON_A_CPU = """
import sys
import torch
from protembed.config.model_sizes import ESM2Shape
from protembed.model.esm2 import ESM2Encoder

encoder = ESM2Encoder(ESM2Shape(num_layers=1, dim=32, num_heads=4))
hidden = encoder(torch.full((12,), 5), encoder.layout(torch.tensor([0, 5, 12])))
hidden.sum().backward()
print([name for name in ("protembed.model.rotary", "triton", "torch._dynamo") if name in sys.modules])
"""


def test_cpus_load_neither_the_operator_nor_the_compiler():
    result = subprocess.run([sys.executable, "-c", COMPUTED_ON_A_CPU], capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"


# The bytes of a layer


class Ledger(TorchDispatchMode):
    """Sums the bytes that operators read and write; views move none."""

    def __init__(self):
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = [item for item in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
        outputs = [item for item in torch.utils._pytree.tree_leaves(result) if isinstance(item, torch.Tensor)]
        aliases = [item.alias_info for item in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if not is_view and "empty" not in function.name() and "detach" not in function.name():
            self.num_bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs))
        return result


@torch.library.custom_op("protembed_test::read_and_write", mutates_args=())
def read_and_write(inputs: list[torch.Tensor], num_outputs: int) -> list[torch.Tensor]:
    return [torch.empty_like(inputs[0], memory_format=torch.contiguous_format) for _ in range(num_outputs)]


@read_and_write.register_fake
def _(inputs, num_outputs):
    return [torch.empty_like(inputs[0], memory_format=torch.contiguous_format) for _ in range(num_outputs)]


class Attention(torch.autograd.Function):
    """Attention in one kernel, as of packed sequences on a GPU."""

    @staticmethod
    def forward(ctx, query, key, value):
        mixed = read_and_write([query, key, value], 1)[0]
        ctx.save_for_backward(query, key, value, mixed)
        return mixed

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, mixed = ctx.saved_tensors
        return tuple(read_and_write([query, key, value, mixed, gradient], 3))


NUM_TOKENS, DIM = 65_536, 640


def bytes_of_a_layer(monkeypatch):
    """Count the bytes per token and channel of a layer, forwards and backwards, as CUDA's autocast would run it."""
    linear = F.linear

    def linear_in_bfloat16(hidden, weight, bias=None):
        return linear(hidden.bfloat16(), weight.bfloat16(), bias.bfloat16())

    monkeypatch.setattr(F, "linear", linear_in_bfloat16)
    monkeypatch.setattr(esm2, "attend_packed", lambda query, key, value, *_: Attention.apply(query, key, value))
    with torch.device("meta"):
        layer = ESM2Encoder(ESM2Shape(num_layers=1, dim=DIM, num_heads=20)).layers[0]
        hidden = torch.empty(NUM_TOKENS, DIM, requires_grad=True)
        layout = PackedLayout(
            offsets=torch.empty(1, dtype=torch.int64),
            boundaries=torch.empty(1, dtype=torch.int32),
            lengths=[NUM_TOKENS],
            longest=NUM_TOKENS,
            num_padding=0,
            is_varlen=True,
            positions=torch.empty(NUM_TOKENS),
            cosine=torch.empty(NUM_TOKENS, 1, 1, DIM // 20),
            sine=torch.empty(NUM_TOKENS, 1, 1, DIM // 40),
        )
        gradient = torch.empty(NUM_TOKENS, DIM)
    with Ledger() as ledger:
        torch.autograd.grad(layer(hidden, layout), [hidden, *layer.parameters()], gradient)
    return ledger.num_bytes / NUM_TOKENS / DIM


def test_a_layer_moves_at_most_340_bytes_per_token_and_channel_in_training(monkeypatch):
    with_operator = bytes_of_a_layer(monkeypatch)
    monkeypatch.setattr(
        PackedLayout, "rotate_packed", lambda layout, packed: (*layout.rotate(packed[:, :2]).unbind(1), packed[:, 2])
    )
    with_autograd = bytes_of_a_layer(monkeypatch)

    assert with_operator <= 340
    assert with_autograd > 500
