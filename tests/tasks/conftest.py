import io
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from protembed.device import worker_pool
from protembed.inference.engine import Engine
from protembed.model.checkpoint import load_checkpoint, save_checkpoint

WINDOW = 64


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

    monkeypatch.setattr("protembed.tasks.embed.inference_engine", engine)


@pytest.fixture
def give_stdin(monkeypatch):
    """Let the next command find some bytes on stdin."""

    def give(content):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return give
