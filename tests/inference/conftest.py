from dataclasses import dataclass

import pytest

from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine


@dataclass(frozen=True)
class Protein:
    sequence: str


@pytest.fixture
def represent(tiny_encoder):
    """Make a representation of the tiny encoder."""

    def make(layers=(2,), poolings=("mean",), window_residues=None, query=None):
        return Embedder(
            encoder=tiny_encoder, layers=layers, poolings=poolings, window_residues=window_residues, query=query
        )

    return make


@pytest.fixture
def compute(pool):
    """Compute something for each of some sequences, by the engine."""

    def run(computation, sequences):
        chosen = [Protein(sequence) for sequence in sequences]
        return [result for _, result in Engine(pool=pool, micro_batch_tokens=200).run(computation, chosen)]

    return run


@pytest.fixture
def three(proteins):
    return proteins[2:5]


@pytest.fixture
def long_and_short(proteins):
    """383 residues, which are windows where these are of 60, and 56 and 60, which are whole."""
    return [proteins[1], proteins[3], proteins[8][:60]]
