from contextlib import contextmanager

import numpy as np
import pytest

from protembed.errors import DataError
from protembed.finetuning.labels import Columns, LabelledProtein, Labels, read_labels

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture
def read(tmp_path):
    """Write a labelled table and read it."""

    def write_and_read(content, *, name="labels.csv", columns=None, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_labels(path, columns or Columns(), **options)

    return write_and_read


@pytest.fixture(scope="session")
def make_labels():
    """Make a labelled table that was read; its rows are named by their number, from 1."""

    def make(sequences, labels=None, splits=None):
        labels = [str(row / 2) for row in range(len(sequences))] if labels is None else labels
        splits = [None] * len(sequences) if splits is None else splits
        proteins = [
            LabelledProtein(id=str(row), sequence=sequence, label=label, split=split, line=row + 1)
            for row, (sequence, label, split) in enumerate(zip(sequences, labels, splits, strict=True), start=1)
        ]
        return Labels(path="labels.csv", target="target", proteins=proteins)

    return make


@pytest.fixture(scope="session")
def mutate():
    """Replace a share of a protein's residues by others."""

    def replace(sequence, share, seed=0):
        rng = np.random.default_rng(seed)
        letters = list(sequence)
        for place in rng.choice(len(letters), round(share * len(letters)), replace=False):
            letters[place] = AMINO_ACIDS[(AMINO_ACIDS.find(letters[place]) + rng.integers(1, 20)) % 20]
        return "".join(letters)

    return replace


@pytest.fixture(scope="session")
def refused():
    """Expect a table to be refused by one sentence that says where and what is wrong."""

    @contextmanager
    def expect(message, line=None):
        with pytest.raises(DataError) as caught:
            yield
        text = str(caught.value)
        assert message in text
        assert "\n" not in text
        assert (f"labels.csv, line {line}: " if line else "labels.csv: ") in text
        assert caught.value.exit_status == 65

    return expect
