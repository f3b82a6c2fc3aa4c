"""What represents a protein: the vectors of its residues, or the one vector they are pooled into."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.shared import PoolingName
from protembed.data.batching import Batch
from protembed.errors import ConfigError
from protembed.model.checkpoint import Checkpoint
from protembed.model.encoder import Encoder, Pack
from protembed.model.heads import TaskHead
from protembed.model.pooling import pool, residues_of


@dataclass(frozen=True, kw_only=True)
class Representation:
    """A layer of an encoder, and how its residues become one vector; its methods are what the engine computes.

    Attributes:
        encoder: on the device where it is to compute.
        layer: whose output, from 0 (the embedding) to the number of layers.
        pooling: from residues to one vector.
    """

    encoder: Encoder
    layer: int
    pooling: PoolingName

    def proteins(self, batch: Batch) -> NDArray[np.float32]:
        """Compute one vector per protein, (proteins, dim)."""
        return _as_array(self._pooled(batch))

    def residues(self, batch: Batch) -> list[NDArray[np.float32]]:
        """Compute one vector per residue: for each protein (residues, dim)."""
        hidden, pack = self._hidden(batch)
        return [_as_array(residues_of(protein)) for (protein,) in pack.split(hidden)]

    def predictions(self, batch: Batch, head: TaskHead) -> NDArray[np.float32]:
        """Compute what a task's head says of each protein: (proteins, classes) probabilities, or (proteins,) values."""
        return _as_array(head.predict(self._pooled(batch)))

    def _pooled(self, batch: Batch) -> Tensor:
        hidden, pack = self._hidden(batch)
        return pool(hidden, pack, self.pooling)

    def _hidden(self, batch: Batch) -> tuple[Tensor, Pack]:
        pack = self.encoder.pack(batch.offsets)
        return self.encoder(batch.tokens.to(pack.offsets.device), pack, self.layer), pack


def representation_of(checkpoint: Checkpoint, *, layer: str = "auto", pooling: str = "auto") -> Representation:
    """Decide which layer and pooling represent a protein.

    Args:
        checkpoint: the model; what it records is what `auto` means.
        layer: `auto`, `last`, or a number.
        pooling: `auto`, or a name of `PoolingName`.

    Raises:
        ConfigError: the model has no such layer.
    """
    last = checkpoint.encoder.shape.num_layers
    recorded = last if checkpoint.record.layer is None else checkpoint.record.layer
    if layer in ("auto", "last"):
        number = recorded if layer == "auto" else last
    elif not layer.isdecimal() or int(layer) > last:
        raise ConfigError("--layer", layer, f"this model has layers 0 to {last}, and the words auto and last")
    else:
        number = int(layer)
    names: dict[str, PoolingName] = {"mean": "mean", "max": "max", "std": "std", "cls": "cls"}
    chosen = names[pooling] if pooling != "auto" else checkpoint.record.pooling or "mean"
    return Representation(encoder=checkpoint.encoder, layer=number, pooling=chosen)


def _as_array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array
