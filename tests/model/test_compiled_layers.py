"""What torch's compiler makes of a layer; no kernel is generated, so no C compiler is needed."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import varlen

NUM_ROWS, LONGEST = 96, 40


@torch.library.custom_op("protembed_test::attend_all", mutates_args=())
def attend_all(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: torch.Tensor) -> torch.Tensor:
    """In place of the kernel for all proteins, which CPUs do not have."""
    return value * boundaries[-1]


@attend_all.register_fake
def _(query, key, value, boundaries):
    return torch.empty_like(value)


@pytest.fixture
def boundaries_of_20():
    """Boundaries of 1 to 20 proteins in the same number of rows."""
    return [torch.linspace(0, NUM_ROWS, number + 1).long() for number in range(1, 21)]


def test_a_layer_has_one_graph_for_any_number_of_proteins_in_the_same_number_of_rows(
    tiny_encoder, boundaries_of_20, monkeypatch
):
    from torch._dynamo.testing import CompileCounter

    monkeypatch.setattr(varlen, "varlen_attn", lambda q, k, v, boundaries, *_: attend_all(q, k, v, boundaries))
    torch._dynamo.reset()
    counter = CompileCounter()
    layer = torch.compile(tiny_encoder.layers[0], backend=counter, dynamic=False, fullgraph=True)

    with torch.autocast("cpu", torch.bfloat16):  # with gradients, as in training
        for offsets in boundaries_of_20:
            layout = replace(tiny_encoder.layout(offsets), is_varlen=True, longest=LONGEST, num_padding=0)
            torch._dynamo.mark_dynamic(layout.boundaries, 0)
            layer(torch.zeros(NUM_ROWS, 32), layout)

    assert counter.frame_count == 1
