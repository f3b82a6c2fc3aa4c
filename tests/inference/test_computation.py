import pytest
import torch

from protembed.inference.computation import run_to_end, take_states
from protembed.inference.marginals import Marginals


@pytest.fixture
def layers_called(family_encoder):
    """List the layers of the tiny encoder that are called."""
    called = []
    handles = [
        layer.register_forward_pre_hook(lambda module, inputs, number=number: called.append(number))
        for number, layer in enumerate(family_encoder.layers)
    ]
    yield called
    for handle in handles:
        handle.remove()


def layers_between_pauses(computation, called):
    """Run a computation; list the layers that it calls before the first pause, before the second, and so on."""
    parts = []
    with torch.inference_mode():
        while True:
            called.clear()
            is_finished = next(computation, "finished") == "finished"
            parts.append([*called])
            if is_finished:
                return parts


def test_states_are_listed_by_layer_and_no_further_one_is_computed():
    states = iter("abcd")

    assert run_to_end(take_states(states, [2, 0])) == ["c", "a"]
    assert next(states) == "d"


@pytest.mark.parametrize(("layers", "expected"), [((2,), [[], [0], [1]]), ((0, 1), [[], [0]]), ((0,), [[]])])
def test_an_embedding_pauses_before_each_layer(represent, whole_batch, three, layers_called, layers, expected):
    computation = represent(layers).proteins().compute(whole_batch(three))

    assert layers_between_pauses(computation, layers_called) == expected


@pytest.mark.parametrize("job", ["masked", "unmasked"])
def test_marginals_pause_before_each_layer(family_checkpoint, family_encoder, whole_batch, three, layers_called, job):
    marginals = Marginals(encoder=family_encoder, lm_head=family_checkpoint.lm_head, window_residues=100)
    computation = getattr(marginals, job)().compute(whole_batch(three))

    assert layers_between_pauses(computation, layers_called) == [[], [0], [1]]
