"""Models that are computed layer by layer give the same bits as models that are in memory."""

import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from protembed.attention.maps import AttentionExtractor, MapRequest
from protembed.config.model_sizes import ESM2Shape, ESMCShape
from protembed.data.alphabet import encode
from protembed.errors import ModelFormatError, TooLongForMemoryError
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine, whole_proteins
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.model.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint, write_checkpoint_files
from protembed.model.offload import OffloadedLayers

SHAPES = {
    "ESM-2": ESM2Shape(num_layers=12, dim=64, num_heads=4),
    "ESM-1b": ESM2Shape(num_layers=12, dim=64, num_heads=4, num_positions=1024, has_embedding_norm=True),
    "ESM-C": ESMCShape(num_layers=12, dim=64, num_heads=4),
}


@dataclass(frozen=True)
class Protein:
    sequence: str
    id: str = "p"


@pytest.fixture(scope="module", params=SHAPES)
def model(request, tmp_path_factory):
    """The directory of a model with 12 random layers, all different."""
    directory = tmp_path_factory.mktemp("models") / request.param
    save_checkpoint(new_checkpoint(SHAPES[request.param], "gaussian", seed=0), directory)
    return directory


@pytest.fixture
def offloaded(model):
    return load_checkpoint(model, offload=True)


@pytest.fixture(scope="module")
def usual(model):
    return load_checkpoint(model)


@pytest.fixture
def run(pool):
    """Run a job on items with a model, in rounds of a few micro-batches."""

    def results_of(checkpoint, job, items):
        engine = Engine(
            pool=pool,
            micro_batch_tokens=100,
            tokens_per_chunk=400,
            layers=checkpoint.offloaded,
            tokens_per_round=500,
        )
        return [result for _, result in engine.run(job, items)]

    return results_of


def embedder_of(checkpoint, layers=(12,), window_residues=None):
    return Embedder(
        encoder=checkpoint.encoder,
        layers=layers,
        poolings=("mean",),
        layer_dim=checkpoint.encoder.shape.dim,
        window_residues=window_residues,
    )


@pytest.fixture
def some(proteins):
    return [Protein(sequence) for sequence in proteins[:12]]


@pytest.fixture
def few(some):
    """One protein of 383 residues, and six of 23 to 106: two rounds."""
    return some[1:8]


@pytest.mark.parametrize("layers", [(12,), (0, 7), (3,), (0,)])
@pytest.mark.parametrize("window_residues", [None, 60])
@pytest.mark.parametrize("job", ["proteins", "residues"])
def test_vectors_of_an_offloaded_model_have_the_same_bits(usual, offloaded, run, few, layers, window_residues, job):
    expected, computed = (
        run(checkpoint, getattr(embedder_of(checkpoint, layers, window_residues), job)(), few)
        for checkpoint in (usual, offloaded)
    )

    for one, other in zip(expected, computed, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("job", ["masked", "unmasked"])
def test_marginals_of_an_offloaded_model_have_the_same_bits(usual, offloaded, run, proteins, job):
    queries = [
        PositionQuery(residues=encode(sequence), positions=np.array([0, 7, len(sequence) - 1]))
        for sequence in proteins[:6]
    ]

    expected, computed = (
        run(checkpoint, getattr(Marginals.from_checkpoint(checkpoint, 100), job)(), queries)
        for checkpoint in (usual, offloaded)
    )

    for one, other in zip(expected, computed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_attention_maps_of_an_offloaded_model_have_the_same_bits(usual, offloaded, run, few):
    def job_of(checkpoint):
        extractor = AttentionExtractor(encoder=checkpoint.encoder, layers=range(12), heads=range(4))
        request = MapRequest(maps=True, received=True)
        return whole_proteins(lambda batch: extractor.extract(batch, [request] * len(batch.rows)))

    expected, computed = (run(checkpoint, job_of(checkpoint), few) for checkpoint in (usual, offloaded))

    for one, other in zip(expected, computed, strict=True):
        for name in ("sums", "offset_sums", "maps", "received"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_layers_are_read_in_the_precision_of_the_products(model, run, few, precision):
    expected, computed = (
        run(checkpoint, embedder_of(checkpoint).proteins(), few)
        for checkpoint in (load_checkpoint(model, precision=precision, offload=offload) for offload in (False, True))
    )

    for one, other in zip(expected, computed, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_layers_that_are_read_ahead_in_a_thread_have_the_same_bits(usual, offloaded, run, few):
    """On a GPU two modules take turns: one is computed, and the other receives the next layer."""
    module = offloaded.encoder.layers[0]
    layers = OffloadedLayers(
        [module, deepcopy(module)],
        12,
        lambda number, name, weight: weight.copy_(usual.encoder.layers[number].get_parameter(name)),
    )
    offloaded.encoder.layers, offloaded.offloaded = layers.modules, layers

    expected, computed = (
        run(checkpoint, embedder_of(checkpoint, (5, 12)).proteins(), few) for checkpoint in (usual, offloaded)
    )

    for one, other in zip(expected, computed, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@dataclass
class CountedLayers:
    """Layers that note when they are loaded."""

    loaded: list[int] = field(default_factory=list)

    def load(self, number):
        self.loaded.append(number)


def computation_of(num_layers, fail=lambda batch, layer: None):
    """Make a job that counts the tokens of proteins, pausing before each layer."""

    def compute(batch):
        for layer in range(num_layers):
            yield
            fail(batch, layer)
        return batch.offsets.diff().tolist()

    return whole_proteins(compute)


def test_each_layer_is_loaded_once_for_all_micro_batches_of_a_round(pool, some):
    layers = CountedLayers()
    engine = Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=800, layers=layers, tokens_per_round=100_000)

    results = [length for _, length in engine.run(computation_of(3), some)]

    assert results == [len(protein.sequence) + 2 for protein in some]
    assert layers.loaded == [0, 1, 2]


def test_a_round_ends_after_its_tokens(pool, some):
    layers = CountedLayers()
    engine = Engine(pool=pool, micro_batch_tokens=200, tokens_per_chunk=800, layers=layers, tokens_per_round=1)

    list(engine.run(computation_of(2), some[:3]))

    assert layers.loaded == [0, 1] * 3


def without_memory_for(num_tokens):
    def fail(batch, layer):
        if layer == 1 and batch.num_tokens > num_tokens:
            raise MemoryError

    return fail


@pytest.mark.promise(22)
def test_micro_batches_that_do_not_fit_are_halved_after_the_round(pool, some):
    layers = CountedLayers()
    engine = Engine(pool=pool, layers=layers)

    results = [length for _, length in engine.run(computation_of(3, without_memory_for(400)), some)]

    assert results == [len(protein.sequence) + 2 for protein in some]
    assert layers.loaded[:4] == [0, 1, 0, 1]


def test_a_protein_that_does_not_fit_is_an_error_in_a_round_too(pool, some):
    with pytest.raises(TooLongForMemoryError, match="a single window of 385 tokens"):
        list(Engine(pool=pool, layers=CountedLayers()).run(computation_of(3, without_memory_for(384)), some))


def test_other_errors_of_a_round_reach_the_caller(pool, some):
    def fail(batch, layer):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(Engine(pool=pool, layers=CountedLayers()).run(computation_of(3, fail), some))


def test_a_damaged_layer_is_found_when_it_is_read(model, tmp_path, run, some):
    copy = shutil.copytree(model, tmp_path / "damaged")
    weights = load_file(copy / "model.safetensors")
    damaged = next(name for name in weights if ".7." in name)
    save_file(weights | {damaged: torch.full_like(weights[damaged], torch.nan)}, copy / "model.safetensors")
    checkpoint = load_checkpoint(copy, offload=True)

    with pytest.raises(ModelFormatError, match="not finite"):
        run(checkpoint, embedder_of(checkpoint).proteins(), some)


def test_all_layers_of_an_offloaded_model_count_as_parameters(usual, offloaded):
    assert offloaded.num_parameters == usual.num_parameters
    assert repr(offloaded) == repr(usual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_offloaded_model_is_written_byte_for_byte_as_one_in_memory(model, tmp_path, usual, dtype):
    half = load_checkpoint(model, precision=torch.bfloat16, offload=True)  # the files are not rounded
    for checkpoint in (usual, half):
        checkpoint.contact_head.bias.fill_(1.0)
        checkpoint.contact_head.weight.fill_(0.5)
    usual_files, half_files = tmp_path / "usual", tmp_path / "half"

    for checkpoint, directory in ((usual, usual_files), (half, half_files)):
        directory.mkdir()
        write_checkpoint_files(checkpoint, directory, "", dtype=dtype)

    names = sorted(path.name for path in usual_files.iterdir())
    assert names == sorted(path.name for path in half_files.iterdir())
    assert all((usual_files / name).read_bytes() == (half_files / name).read_bytes() for name in names)


# Memory

PEAK = """
import sys, threading, time
from pathlib import Path
from protembed.device import WorkerPool
from protembed.inference.embedding import Embedder
from protembed.inference.engine import Engine
from protembed.model.checkpoint import load_checkpoint, save_checkpoint


class Protein:
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" * 3


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def watch():
    while not ended.wait(0.002):
        peaks.append(anonymous())


def embed(model, offload):
    checkpoint = load_checkpoint(model, offload=offload)
    job = Embedder.from_checkpoint(checkpoint).proteins()
    with WorkerPool(1) as pool:
        list(Engine(pool=pool, layers=checkpoint.offloaded).run(job, [Protein()] * 3))


def save(model, offload):
    save_checkpoint(load_checkpoint(model, offload=offload), sys.argv[5])


small, large, offload, task = sys.argv[1], sys.argv[2], sys.argv[3] == "True", globals()[sys.argv[4]]
task(small, offload)  # so that libraries have allocated what they keep
peaks, ended = [anonymous()], threading.Event()
threading.Thread(target=watch, daemon=True).start()
task(large, offload)
ended.set()
print(max(peaks) - peaks[0])
"""


LARGE = ESM2Shape(num_layers=12, dim=768, num_heads=12)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not say which memory is anonymous")


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """The directory of a model in bfloat16, so that no weight is a view of the mapped file."""
    directory = tmp_path_factory.mktemp("large")
    write_checkpoint_files(new_checkpoint(LARGE, "uniform", seed=0), directory, "", dtype=torch.bfloat16)
    return directory


@pytest.fixture
def peak(large_model, tiny_model, tmp_path):
    """Measure the peak memory of a task with the large model, in bytes."""

    def measure(task, offload):
        arguments = [tiny_model, large_model, str(offload), task, tmp_path / "saved"]
        return int(subprocess.check_output([sys.executable, "-c", PEAK, *arguments]))

    return measure


LAYER = 4 * LARGE.num_layer_parameters
EMBEDDING_AND_HEADS = 4 * (LARGE.num_parameters - 12 * LARGE.num_layer_parameters)


@on_linux
def test_the_peak_memory_is_below_two_layers_and_the_batch(peak):
    num_tokens = 128  # rounded up for oneDNN; copies of one protein are computed once
    batch = 4 * num_tokens * 10 * LARGE.dim

    assert peak("embed", offload=True) < 2 * LAYER + EMBEDDING_AND_HEADS + batch
    assert peak("embed", offload=False) > 11 * LAYER


@on_linux
def test_an_offloaded_model_is_written_weight_by_weight(peak):
    assert peak("save", offload=True) < LAYER + EMBEDDING_AND_HEADS
