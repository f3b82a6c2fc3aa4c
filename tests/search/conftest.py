import csv

import numpy as np
import pytest
from stored_results import store as store

from protembed.config.embed import JoinOptions
from protembed.config.search import SearchOptions
from protembed.embedding.join import join_embeddings
from protembed.search.search import search_embeddings


@pytest.fixture(scope="session")
def draw():
    """Draw vectors with a common part, as those of a model have."""

    def vectors(number, dim=16, seed=0):
        return np.random.default_rng(seed).normal(0.5, 1.0, (number, dim)).astype(np.float32)

    return vectors


@pytest.fixture
def find(tmp_path):
    """Search, and read the table of hits."""

    def search(queries, database, *, output="hits.tsv", **settings):
        options = SearchOptions.from_values(output=tmp_path / output, threads=1, **settings)
        summary = search_embeddings(queries, database, options)
        with open(tmp_path / output, newline="") as stream:
            return summary, list(csv.DictReader(stream, delimiter="\t"))

    return search


@pytest.fixture
def convert(tmp_path):
    """Write a result in another format."""

    def write(result, suffix):
        return join_embeddings(result, JoinOptions.from_values(output=tmp_path / f"converted.{suffix}")).output

    return write
