"""What represents a protein: the vectors of its residues, or the one vector they are pooled into."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.common import PoolingName
from protembed.data.batching import Batch
from protembed.data.windows import Span
from protembed.device import to_device
from protembed.errors import ConfigError, NotFiniteError
from protembed.inference.engine import InferenceJob, Result, WindowedJob
from protembed.model.checkpoint import Checkpoint
from protembed.model.esm2 import Encoder, PackedLayout
from protembed.model.heads import TaskHead
from protembed.model.pooling import merge_windows, overlap_cosine, pool, pool_all, residues_of, strip_special_tokens


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """What represents one protein.

    Attributes:
        values: (dim,), or (residues, dim), float32.
        num_windows: how many windows it was computed in.
        overlap_cosine: how well neighbouring windows agree; None for one window.
    """

    values: NDArray[np.float32]
    num_windows: int = 1
    overlap_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Layers of an encoder, and how residues become one vector.

    Attributes:
        encoder: on the device where it is to compute.
        layers: whose outputs, from 0 (the embedding) to the number of layers, side by side.
        poolings: from residues to one vector, side by side; within each the layers.
        window_residues: longer proteins are computed in windows of this length; None: every protein whole.
        query: (dim,), of a learned pooling by attention; None for all others.
    """

    encoder: Encoder
    layers: tuple[int, ...]
    poolings: tuple[PoolingName, ...]
    window_residues: int | None
    query: Tensor | None = None

    def proteins(self) -> InferenceJob[Embedding]:
        """Compute one vector per protein, (poolings · layers · dim,)."""

        def whole(batch: Batch) -> list[Embedding]:
            return [Embedding(values=vector) for vector in _as_array(self._pooled(batch))]

        return InferenceJob(
            whole=whole, long=self._long(lambda cls, residues: _as_array(self._pool_one(cls, residues)))
        )

    def residues(self) -> InferenceJob[Embedding]:
        """Compute one vector per residue: for each protein (residues, layers · dim)."""

        def whole(batch: Batch) -> list[Embedding]:
            hidden, layout = self._hidden(batch)
            return [Embedding(values=_as_array(residues_of(protein))) for (protein,) in layout.split(hidden)]

        return InferenceJob(whole=whole, long=self._long(lambda cls, residues: _as_array(residues)))

    def predictions(self, head: TaskHead) -> InferenceJob[NDArray[np.float32]]:
        """Compute what a task's head says of each protein, or of each of its residues: see `TaskHead.predict`."""

        def whole(batch: Batch) -> Sequence[NDArray[np.float32]]:
            if not head.task.per_residue:
                return list(_as_array(head.predict(self._pooled(batch))))
            hidden, layout = self._hidden(batch)
            return [_as_array(head.predict(residues_of(protein))) for (protein,) in layout.split(hidden)]

        def join(windows: Sequence[Tensor], spans: Sequence[Span]) -> NDArray[np.float32]:
            cls, residues = (part.to(head.scale.device) for part in merge_windows(windows, spans))
            if head.task.per_residue:
                return _as_array(head.predict(residues))
            return np.asarray(_as_array(head.predict(self._pool_one(cls, residues)[None]))[0])

        return InferenceJob(whole=whole, long=self._long_proteins(join))

    def slices(self, *, per_residue: bool) -> list[dict[str, Any]]:
        """Say which columns of a vector are which pooling of which layer; a residue's vector has no pooling."""
        dim, poolings = self.encoder.shape.dim, (None,) if per_residue else self.poolings
        parts = [(pooling, layer) for pooling in poolings for layer in self.layers]
        return [
            {"pooling": pooling, "layer": layer, "start": number * dim, "stop": (number + 1) * dim}
            for number, (pooling, layer) in enumerate(parts)
        ]

    def _long(self, values: Callable[[Tensor, Tensor], NDArray[np.float32]]) -> WindowedJob[Embedding] | None:
        def join(windows: Sequence[Tensor], spans: Sequence[Span]) -> Embedding:
            cls, residues = merge_windows(windows, spans)
            return Embedding(
                values=values(cls, residues),
                num_windows=len(spans),
                overlap_cosine=overlap_cosine(strip_special_tokens(windows, spans), spans),
            )

        return self._long_proteins(join)

    def _long_proteins(self, join: Callable[[Sequence[Tensor], Sequence[Span]], Result]) -> WindowedJob[Result] | None:
        if self.window_residues is None:
            return None
        return WindowedJob(window_residues=self.window_residues, windows=self._windows, join=join)

    def _windows(self, batch: Batch) -> list[Tensor]:
        """Compute the vectors of all tokens of each window, (tokens, layers · dim), on the CPU."""
        hidden, layout = self._hidden(batch)
        return [window for (window,) in layout.split(hidden.float().cpu())]

    def _pooled(self, batch: Batch) -> Tensor:
        hidden, layout = self._hidden(batch)
        return torch.cat([pool(hidden, layout, pooling, self.query) for pooling in self.poolings], dim=-1)

    def _pool_one(self, cls: Tensor, residues: Tensor) -> Tensor:
        query = None if self.query is None else self.query.to(residues.device)
        return pool_all(cls, residues, self.poolings, query)

    def _hidden(self, batch: Batch) -> tuple[Tensor, PackedLayout]:
        """Compute the vectors of all tokens, (tokens, layers · dim)."""
        layout = self.encoder.layout(batch.offsets)
        states = self.encoder.hidden_states(to_device(batch.tokens, layout.offsets.device), layout)
        wanted = {
            number: hidden
            for number, hidden in enumerate(islice(states, max(self.layers) + 1))
            if number in self.layers
        }
        if len(self.layers) == 1:
            return wanted[self.layers[0]], layout
        return torch.cat([wanted[layer] for layer in self.layers], dim=-1), layout


def representation_of(
    checkpoint: Checkpoint, *, layer: str = "auto", pooling: str = "auto", window_residues: int | None = None
) -> Embedder:
    """Decide which layers and poolings represent a protein.

    Args:
        checkpoint: the model; what it records is what `auto` and None mean.
        layer: `auto`, `last`, `all`, or numbers, as in `3,6`.
        pooling: `auto`, or names of `PoolingName`, as in `mean,std`.
        window_residues: the longest stretch that is computed at once.

    Raises:
        ConfigError: the model has no such layer, or there is no such pooling.
    """
    last, record = checkpoint.encoder.shape.num_layers, checkpoint.metadata
    named = {
        "auto": (last if record.layer is None else record.layer,),
        "last": (last,),
        "all": tuple(range(last + 1)),
    }
    layers = named.get(layer) or _numbers(layer, last)
    poolings = parse_poolings((record.pooling or "mean") if pooling == "auto" else pooling)
    query = None if checkpoint.task_head is None else checkpoint.task_head.query
    if "attention" in poolings and (query is None or layers != named["auto"]):
        raise ConfigError("--pooling", pooling, "this model has learned none for that layer, only finetune makes some")
    return Embedder(
        encoder=checkpoint.encoder,
        layers=layers,
        poolings=poolings,
        window_residues=window_residues or record.window_residues,
        query=query if "attention" in poolings else None,
    )


def _numbers(layer: str, last: int) -> tuple[int, ...]:
    parts = [part.strip() for part in layer.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) <= last for part in parts):
        raise ConfigError(
            "--layer", layer, f"this model has layers 0 to {last} (several as in 0,{last}), and auto, last, all"
        )
    _check_distinct("--layer", layer, parts)
    return tuple(map(int, parts))


def parse_poolings(pooling: str) -> tuple[PoolingName, ...]:
    """Read names of poolings, as in `mean,std`.

    Raises:
        ConfigError: there is no such pooling, or one is named twice.
    """
    parts, known = [part.strip() for part in pooling.split(",")], get_args(PoolingName)
    if not set(parts) <= set(known):
        expected = f"one of {', '.join(known)} is expected, several as in mean,std, or auto"
        raise ConfigError("--pooling", pooling, expected)
    _check_distinct("--pooling", pooling, parts)
    return tuple(cast("list[PoolingName]", parts))


def _check_distinct(option: str, value: str, parts: Sequence[str]) -> None:
    if len(set(parts)) < len(parts):
        raise ConfigError(option, value, "each can be named once")


def check_finite(record_id: str, values: NDArray[np.floating], what: str = "vectors") -> None:
    """Refuse what was computed of a protein unless it is made of numbers.

    Args:
        record_id: of the protein.
        values: computed in float32.
        what: they are, for the message.

    Raises:
        NotFiniteError: they hold an infinity, or what is no number.
    """
    if not np.isfinite(values).all():
        raise NotFiniteError(record_id, "float32", "float32", what=what)


def _as_array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array
