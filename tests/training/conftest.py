import numpy as np
import pytest
import torch

from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.data.alphabet import MASK
from protembed.data.batching import MaskedBatch
from protembed.pretraining.batches import PretrainingPlan
from protembed.training.objective import MaskedLM


@pytest.fixture
def masked_lm(tiny_checkpoint):
    return MaskedLM(tiny_checkpoint.encoder, tiny_checkpoint.lm_head)


@pytest.fixture(scope="session")
def hide(whole_batch):
    """Pack whole proteins and hide residues of each, numbered from 0."""

    def make(sequences, hidden):
        batch = whole_batch(sequences)
        positions = [start + 1 + at for start, of_one in zip(batch.offsets, hidden, strict=False) for at in of_one]
        positions = torch.tensor(positions, dtype=torch.int64)
        targets, tokens = batch.tokens[positions], batch.tokens.clone()
        tokens[positions] = MASK
        return MaskedBatch(
            tokens=tokens,
            offsets=batch.offsets,
            rows=batch.rows,
            positions=positions,
            targets=targets,
            num_residues=sum(map(len, sequences)),
        )

    return make


@pytest.fixture(scope="session")
def few(hide, proteins):
    """One protein with three hidden residues."""
    return hide(proteins[2:3], [range(3, 60, 20)])


@pytest.fixture(scope="session")
def many(hide, proteins):
    """Another protein with seventeen hidden residues."""
    return hide(proteins[3:4], [range(3, 54, 3)])


@pytest.fixture(scope="session")
def twenty(hide, proteins):
    """`few` and `many` in one batch."""
    return hide(proteins[2:4], [range(3, 60, 20), range(3, 54, 3)])


@pytest.fixture
def nothing_hidden(hide, proteins):
    return hide(proteins[4:5], [[]])


@pytest.fixture(scope="session")
def steps(corpus):
    """Steps of about 400 tokens in packs of about 130."""
    batches = BatchConfig(tokens_per_batch=400, crop_residues=64)
    return PretrainingPlan(corpus, batches, 130, MaskingConfig(), seed=0)


@pytest.fixture(scope="session")
def weights_of():
    """Copy all numbers of a module, to compare them bit for bit later."""

    def copy(module):
        return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}

    return copy


@pytest.fixture(scope="session")
def same_bits():
    def compare(one, other):
        return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

    return compare
