"""The computation of one batch, which pauses before each layer of the encoder.

Most computations run to their end at once. Pauses let several batches pass through a layer before any of them
reaches the next one.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from protembed.data.batching import Batch
from protembed.device import to_device
from protembed.model.encoder import Encoder, Layer

Result = TypeVar("Result")

# It yields nothing at each pause, and returns its result.
Computation = Generator[None, None, Result]


def run_to_end(computation: Computation[Result]) -> Result:
    """Run a computation without stopping at its pauses, and return its result.

    >>> run_to_end(take_states(iter("abc"), [2, 0]))
    ['c', 'a']
    """
    while True:
        try:
            next(computation)
        except StopIteration as end:
            result: Result = end.value
            return result


def take_states(states: Iterator[Tensor], layers: Sequence[int]) -> Computation[list[Tensor]]:
    """Take the hidden states of some layers, pausing before each layer; no layer after the last of them is computed.

    Args:
        states: The embedding and each layer's output, as `Encoder.hidden_states` yields them.
        layers: Numbers of the layers, 0 for the embedding, in any order.

    Returns:
        The hidden states, in the order of `layers`.
    """
    taken = {}
    for layer in range(max(layers) + 1):
        if layer:
            yield
        hidden = next(states)
        if layer in layers:
            taken[layer] = hidden
    return [taken[layer] for layer in layers]


def visit_attention(encoder: Encoder, batch: Batch, visit: Callable[[int, int, Tensor], None]) -> Computation[None]:
    """Compute the attention weights of each layer, pausing before each layer, and hold none of them.

    Args:
        encoder: The encoder, on the device that computes.
        batch: Whole proteins.
        visit: Called with the number of the layer and that of the protein in the batch, both from 0, and with the
            attention weights, (head, length, length), float32, on the CPU.
    """
    layout = encoder.layout(batch.offsets)
    states = encoder.hidden_states(to_device(batch.tokens, layout.offsets.device), layout)
    for number, layer in enumerate(encoder.layers):
        hidden = next(states)
        yield
        assert isinstance(layer, Layer)
        maps = layer.attention_weights(hidden, layout)
        for protein in range(len(layout.lengths)):
            # Holding the maps while the next layer is computed would double the memory.
            visit(number, protein, maps.pop(0).cpu())
