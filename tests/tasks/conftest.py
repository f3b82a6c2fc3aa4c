import csv
import io
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from protembed.config.common import TASKS, ComputeConfig, ModelConfig
from protembed.config.finetune import FinetuneConfig, LabelsConfig
from protembed.device import worker_pool
from protembed.finetuning.finetune import FinetuneOptions
from protembed.inference.engine import Engine
from protembed.model.checkpoint import load_checkpoint, save_checkpoint

WINDOW = 64
NUM_TRAIN, NUM_VALID = 24, 6


@pytest.fixture(scope="session")
def windowed_model(tiny_model, tmp_path_factory):
    """The tiny model, with a window of 64 residues: of the forty proteins most are longer."""
    checkpoint = load_checkpoint(tiny_model)
    checkpoint.record = replace(checkpoint.record, window_residues=WINDOW)
    directory = tmp_path_factory.mktemp("models") / "windowed"
    save_checkpoint(checkpoint, directory, "# windowed\n")
    return directory


@pytest.fixture
def small_chunks(monkeypatch):
    """Let `embed` make its rows safe every 800 tokens."""

    @contextmanager
    def engine(config, device, shape, width):
        with worker_pool(config, device) as pool:
            yield Engine(pool=pool, tokens_per_pack=200, tokens_per_chunk=800)

    monkeypatch.setattr("protembed.embedding.embed.inference_engine", engine)


@pytest.fixture
def give_stdin(monkeypatch):
    """Let the next command find some bytes on stdin."""

    def give(content):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return give


# Labelled tables


def share_of(letter, sequence):
    return sequence.count(letter) / len(sequence)


def labels_of(proteins, task):
    """Labels that real proteins have indeed, of each kind."""
    shares = {letter: np.array([share_of(letter, protein) for protein in proteins]) for letter in "LGK"}
    middles = {letter: np.median(values[:NUM_TRAIN]) for letter, values in shares.items()}
    if task == "classification":
        return ["rich" if share > middles["L"] else "poor" for share in shares["L"]]
    if task == "regression":
        return [f"{100 * share:.3f}" for share in shares["L"]]
    if task == "multilabel":
        rows = zip(*((shares[letter] > middles[letter]).tolist() for letter in "LGK"), strict=True)
        return [";".join(["all", *(letter for letter, has in zip("LGK", row, strict=True) if has)]) for row in rows]
    if task == "residue-classification":
        return ["".join("H" if letter in "AELKM" else "C" for letter in protein) for protein in proteins]
    return [";".join("nan" if letter == "X" else f"{ord(letter) / 10}" for letter in protein) for protein in proteins]


@pytest.fixture(scope="session")
def tables(tmp_path_factory, proteins):
    """A table of each task, of forty real proteins."""
    folder = tmp_path_factory.mktemp("tables")
    splits = ["train"] * NUM_TRAIN + ["valid"] * NUM_VALID + ["test"] * (len(proteins) - NUM_TRAIN - NUM_VALID)
    for task in TASKS:
        with (folder / f"{task}.csv").open("w", newline="") as stream:
            ids = [f"p{row}" for row in range(len(proteins))]
            rows = zip(ids, proteins, labels_of(proteins, task), splits, strict=True)
            csv.writer(stream).writerows([("id", "sequence", "label", "split"), *rows])
    return folder


@pytest.fixture(scope="session")
def options():
    """Make the options of a short fine-tuning."""

    def make(output, model, *, labels=None, **settings):
        return FinetuneOptions(
            finetune=FinetuneConfig(output=output, **{"epochs": 2, "tokens_per_batch": 1024, "quick": True} | settings),
            labels=LabelsConfig(**labels or {}),
            model=ModelConfig(model=model),
            compute=ComputeConfig(threads=1),
        )

    return make


@pytest.fixture(scope="session")
def rows_of():
    """Read the rows of a table."""

    def read(path, delimiter="\t"):
        with path.open() as stream:
            return list(csv.DictReader(stream, delimiter=delimiter))

    return read
