"""Which model for what, on this computer: by published results, memory, and a short measurement of the speed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from protembed.config.common import DEFAULT_MODEL, DeviceConfig
from protembed.config.model_sizes import EncoderShape
from protembed.data.alphabet import AMINO_ACIDS
from protembed.data.fasta import Record
from protembed.device import choose_device, choose_precision, total_memory
from protembed.embedding.estimate import Workload, count_operations
from protembed.inference.embedding import Embedder
from protembed.inference.engine import inference_engine
from protembed.inference.loading import load_for_inference, needed_memory
from protembed.model.catalog import locate_model
from protembed.model.published import PUBLISHED_MODELS, PublishedModel, embedding_bytes
from protembed.resources import num_threads

# The proteins whose time is printed, as long as those of Swiss-Prot.
NUM_PROTEINS, NUM_RESIDUES = 1_000, 350
MAX_SECONDS = 3_600.0
_SAMPLED = 16
_ESM2_WINDOW = 1_022


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A model for a purpose.

    Attributes:
        purpose: What it is for.
        model: The value for `--model`.
        memory_bytes: The memory for embedding: the weights and a batch of 1,024 tokens.
        seconds: The estimated time to embed `NUM_PROTEINS` proteins.
        reason: What speaks for the model, in a few words.
    """

    purpose: str
    model: str
    memory_bytes: int
    seconds: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Recommendations:
    """A model for each purpose, and what is known about the computer.

    Attributes:
        device: The device that computes.
        num_threads: The number of CPU threads.
        memory_bytes: The memory of the device.
        precision: The precision of matrix products.
        models: One for each purpose; purposes for which the computer is too small are left out.
    """

    device: str
    num_threads: int
    memory_bytes: int
    precision: str
    models: Sequence[Recommendation]


@dataclass(frozen=True, kw_only=True)
class _Purpose:
    """What people do with a model, and how published models compare.

    Attributes:
        quality: The higher, the better; None for a model about which nothing is known, or that is not for this.
        reason: Says what is known.
    """

    name: str
    quality: Callable[[PublishedModel], float | None]
    reason: Callable[[PublishedModel], str]


_PURPOSES = (
    _Purpose(
        name="vectors",
        quality=lambda model: None if model.perplexity is None else -model.perplexity,
        reason=lambda model: f"perplexity {model.perplexity:.2f}",
    ),
    _Purpose(
        name="ranking variants",
        quality=lambda model: model.variant_spearman,
        reason=lambda model: f"Spearman {model.variant_spearman:.2f} in ProteinGym",
    ),
    _Purpose(
        name="contacts",
        quality=lambda model: model.contact_precision,
        reason=lambda model: f"{model.contact_precision:.1%} of the top L long-range ones".replace("%", " %"),
    ),
    _Purpose(
        name="vectors of 1,023 to 2,046 residues",
        quality=lambda model: (
            model.shape.num_parameters if model.shape.trained_window_residues > _ESM2_WINDOW else None
        ),
        reason=lambda model: f"window of {model.shape.trained_window_residues:,} residues",
    ),
)


def recommend_models(compute: DeviceConfig | None = None) -> Recommendations:
    """Recommend a model for each purpose: the best that fits into memory and is fast enough.

    The speed is measured with the bundled model for a second. On a GPU larger models are faster than it in proportion,
    so their times are upper bounds.

    Args:
        compute: The device and the number of threads; the defaults if None.

    Raises:
        ConfigError: The device is not available.
        ModelFormatError: The bundled model is damaged.
    """
    compute = compute or DeviceConfig()
    device = choose_device(compute)
    precision = choose_precision("auto", device)
    memory, rate = total_memory(device), measure_rate(compute, device, precision)

    def describe(purpose: str, name: str, shape: EncoderShape, reason: str) -> Recommendation:
        return Recommendation(
            purpose=purpose,
            model=name,
            memory_bytes=embedding_bytes(shape, precision.itemsize),
            seconds=count_operations(shape, [NUM_RESIDUES + 2] * NUM_PROTEINS) / rate,
            reason=reason,
        )

    def best() -> Iterator[Recommendation]:
        yield describe("trials without network", DEFAULT_MODEL, locate_model().shape, "bundled")
        for purpose in _PURPOSES:
            fitting = (model for model in _ranked(purpose) if needed_memory(model.shape, precision, device) <= memory)
            found = (describe(purpose.name, model.name, model.shape, purpose.reason(model)) for model in fitting)
            yield from islice((model for model in found if model.seconds <= MAX_SECONDS), 1)

    return Recommendations(
        device=device.type,
        num_threads=num_threads(compute),
        memory_bytes=memory,
        precision=str(precision).removeprefix("torch."),
        models=tuple(best()),
    )


def measure_rate(compute: DeviceConfig, device: torch.device, precision: torch.dtype) -> float:
    """Measure how many operations of matrix products a second the bundled model does, while it embeds proteins."""
    checkpoint = load_for_inference(locate_model(), compute, precision)
    job, shape = Embedder.from_checkpoint(checkpoint).proteins(), checkpoint.encoder.shape
    workload = Workload(shape)
    workload.count(_random_proteins(), job)
    with inference_engine(compute, device, shape) as engine:
        workload.seconds(engine, job)  # the first second loads kernels
        return workload.operations / workload.seconds(engine, job)


def _random_proteins() -> Iterator[Record]:
    rng, letters = np.random.default_rng(0), list(AMINO_ACIDS)
    for row in range(_SAMPLED):
        sequence = "".join(rng.choice(letters, NUM_RESIDUES))
        yield Record(row=row, id=str(row), description="", sequence=sequence, path="", line=row)


def _ranked(purpose: _Purpose) -> list[PublishedModel]:
    """List the models that can be loaded as they are, the best one first."""
    known = [
        (quality, model)
        for model in PUBLISHED_MODELS
        if model.has_safetensors and (quality := purpose.quality(model)) is not None
    ]
    return [model for _, model in sorted(known, key=lambda pair: -pair[0])]
