import pytest
import torch
import torch.nn.functional as F

from protembed.model.linear import Linear

WAYS = {
    "plain": lambda linear, inputs, stream: linear(inputs),
    "gelu": lambda linear, inputs, stream: linear.with_gelu(inputs),
    "added": lambda linear, inputs, stream: linear.added_to(stream, inputs),
}
BY_TORCH = {
    "plain": lambda linear, inputs, stream: F.linear(inputs, linear.weight, linear.bias),
    "gelu": lambda linear, inputs, stream: F.gelu(F.linear(inputs, linear.weight, linear.bias)),
    "added": lambda linear, inputs, stream: stream + F.linear(inputs, linear.weight, linear.bias),
}


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setenv("PROTEMBED_ONEDNN", "1")
    torch.manual_seed(0)
    return Linear(48, 96)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_tokens", [1, 7, 1024])
def test_without_gradients_the_same_numbers_come_out_and_the_stream_stays(linear, way, num_tokens):
    inputs, stream = 3 * torch.randn(num_tokens, 48), torch.randn(num_tokens, 96)
    before = stream.clone()

    with torch.inference_mode():
        assert linear._uses_onednn(inputs)
        computed = WAYS[way](linear, inputs, stream)

    assert torch.allclose(computed, BY_TORCH[way](linear, inputs, stream), rtol=1e-5, atol=1e-5)
    assert torch.equal(stream, before)


@pytest.mark.parametrize("way", WAYS)
def test_with_gradients_it_is_torchs_own_to_the_bit(linear, way):
    inputs, stream = torch.randn(5, 48), torch.randn(5, 96)

    computed = WAYS[way](linear, inputs, stream)

    assert torch.equal(computed, BY_TORCH[way](linear, inputs, stream))
    assert computed.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_is_torchs_own(linear, dtype):
    with torch.inference_mode():
        assert not linear.to(dtype)._uses_onednn(torch.randn(5, 48, dtype=dtype))
