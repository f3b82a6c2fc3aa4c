import copy

import pytest
import torch
import torch.nn.functional as F

from protembed.model.onednn_linear import Linear, padding_for

WAYS = {
    "plain": lambda linear, inputs, residual: linear(inputs),
    "gelu": lambda linear, inputs, residual: linear.linear_gelu(inputs),
    "added": lambda linear, inputs, residual: linear.add_residual(residual, inputs),
}
BY_TORCH = {
    "plain": lambda linear, inputs, residual: F.linear(inputs, linear.weight, linear.bias),
    "gelu": lambda linear, inputs, residual: F.gelu(F.linear(inputs, linear.weight, linear.bias)),
    "added": lambda linear, inputs, residual: residual + F.linear(inputs, linear.weight, linear.bias),
}


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return Linear(48, 96)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_tokens", [64, 192, 1024])
def test_onednn_computes_the_same_values_and_leaves_the_residual_unchanged(linear, way, num_tokens):
    inputs, residual = 3 * torch.randn(num_tokens, 48), torch.randn(num_tokens, 96)
    before = residual.clone()

    with torch.inference_mode():
        assert linear._uses_onednn(inputs)
        computed = WAYS[way](linear, inputs, residual)

    assert torch.allclose(computed, BY_TORCH[way](linear, inputs, residual), rtol=1e-5, atol=1e-5)
    assert torch.equal(residual, before)


@pytest.mark.parametrize("way", WAYS)
def test_with_gradients_the_linear_map_equals_torchs_bit_for_bit(linear, way):
    inputs, residual = torch.randn(64, 48), torch.randn(64, 96)

    computed = WAYS[way](linear, inputs, residual)

    assert torch.equal(computed, BY_TORCH[way](linear, inputs, residual))
    assert computed.requires_grad


@pytest.mark.parametrize("way", WAYS)
def test_fused_products_in_bfloat16_are_as_near_to_float32_as_torchs(linear, way):
    inputs, residual = torch.randn(64, 48).bfloat16(), torch.randn(64, 96)
    exact = copy.deepcopy(linear)
    linear.bfloat16()
    exact.load_state_dict(linear.state_dict())

    with torch.inference_mode():
        expected = BY_TORCH[way](exact, inputs.float(), residual)
        computed, by_torch = (ways[way](linear, inputs, residual) for ways in (WAYS, BY_TORCH))
        assert linear._uses_onednn(inputs) == torch.ops.mkldnn._is_mkldnn_bf16_supported()

    assert computed.dtype == (torch.float32 if way == "added" else torch.bfloat16)
    assert (computed - expected).abs().max() <= 1.1 * (by_torch - expected).abs().max()


def test_float16_does_not_use_onednn(linear):
    with torch.inference_mode():
        assert not linear.to(torch.float16)._uses_onednn(torch.randn(64, 48, dtype=torch.float16))


@pytest.mark.parametrize("num_rows", [0, 1, 63, 65, 1023, 1088, 2048])
def test_onednn_is_not_used_for_other_numbers_of_rows(linear, num_rows):
    inputs = torch.randn(num_rows, 48)

    with torch.inference_mode():
        assert not linear._uses_onednn(inputs)
        assert torch.equal(linear(inputs), F.linear(inputs, linear.weight, linear.bias))


@pytest.mark.parametrize(("num_rows", "padding"), [(1, 63), (64, 0), (65, 63), (1000, 24), (1024, 0), (1025, 0)])
def test_micro_batches_are_padded_for_onednn_only_without_gradients(num_rows, padding):
    with torch.no_grad():
        assert padding_for(num_rows, torch.device("cpu")) == padding
        assert padding_for(num_rows, torch.device("meta")) == 0
    assert padding_for(num_rows, torch.device("cpu")) == 0


@pytest.mark.parametrize(("num_rows", "padding"), [(1, 63), (64, 0), (1000, 24), (1025, 63)])
def test_micro_batches_in_half_precision_are_padded_whatever_their_length_and_with_gradients(num_rows, padding):
    cpu = torch.device("cpu")
    assert padding_for(num_rows, cpu, torch.bfloat16) == padding
    with torch.autocast("cpu", torch.bfloat16):
        assert padding_for(num_rows, cpu) == padding
        assert padding_for(num_rows, torch.device("meta")) == 0
