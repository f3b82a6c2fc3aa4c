from dataclasses import dataclass

import pytest

from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine


@dataclass(frozen=True)
class Protein:
    sequence: str


@pytest.fixture
def represent(family_encoder):
    """Make an embedder with a tiny encoder of each architecture."""

    def make(layers=(2,), poolings=("mean",), window_residues=None, query=None):
        return Embedder(
            encoder=family_encoder,
            layers=layers,
            poolings=poolings,
            layer_dim=32,
            window_residues=window_residues,
            query=query,
        )

    return make


@pytest.fixture
def compute(pool):
    """Run a job on some sequences with the engine."""

    def run(job, sequences):
        chosen = [Protein(sequence) for sequence in sequences]
        return [result for _, result in Engine(pool=pool, micro_batch_tokens=200).run(job, chosen)]

    return run


@pytest.fixture
def three(proteins):
    return proteins[2:5]


@pytest.fixture
def long_and_short(proteins):
    """A protein of 383 residues, longer than a window of 60, and two of 56 and 60 residues, which are not."""
    return [proteins[1], proteins[3], proteins[8][:60]]
