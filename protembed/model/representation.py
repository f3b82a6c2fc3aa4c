"""What represents a protein: the layers of an encoder and the poolings of residue vectors. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from protembed.config.common import PoolingName, parse_numbers
from protembed.config.model_sizes import EncoderShape
from protembed.errors import ConfigError
from protembed.model.metadata import ModelMetadata


def parse_poolings(pooling: str) -> tuple[PoolingName, ...]:
    """Parse the names of poolings, as in `mean,std`.

    Raises:
        ConfigError: There is no such pooling, or one is named twice.
    """
    parts, known = [part.strip() for part in pooling.split(",")], get_args(PoolingName)
    if not set(parts) <= set(known):
        expected = f"one of {', '.join(known)} is expected, several as in mean,std, or auto"
        raise ConfigError("pooling", pooling, expected)
    _check_distinct("pooling", pooling, parts)
    return tuple(cast("list[PoolingName]", parts))


def _check_distinct(option: str, value: str, parts: Sequence[object]) -> None:
    if len(set(parts)) < len(parts):
        raise ConfigError(option, value, "each can be named once")


@dataclass(frozen=True, kw_only=True)
class Representation:
    """What represents a protein.

    Attributes:
        layers: The layers whose outputs are concatenated, from 0 (the embedding) to the number of layers.
        poolings: The poolings whose vectors are concatenated, each of all layers.
        layer_dim: The width of a layer's output.
    """

    layers: tuple[int, ...]
    poolings: tuple[PoolingName, ...]
    layer_dim: int

    @staticmethod
    def choose(
        shape: EncoderShape,
        metadata: ModelMetadata,
        *,
        layer: str = "auto",
        pooling: str = "auto",
        has_query: bool | None = None,
    ) -> "Representation":
        """Choose the layers and poolings that represent a protein.

        Args:
            shape: The shape of the encoder.
            metadata: The metadata of the model, which decide where the other arguments are `auto`.
            layer: `auto`, `last`, `all`, or numbers and ranges, as in `0,3-6`.
            pooling: `auto`, or names of `PoolingName`, as in `mean,std`.
            has_query: Whether the model has the query of a pooling by attention; None if its metadata decide.

        Raises:
            ConfigError: The model has no such layer, there is no such pooling, or the model has not learned it.
        """
        last = shape.num_layers
        recorded: tuple[int, ...] = (last if metadata.layer is None else metadata.layer,)
        layers = recorded
        if layer != "auto":
            layers = parse_numbers("layer", layer, range(last + 1), words="auto, all, last")
            _check_distinct("layer", layer, layers)
        poolings = parse_poolings((metadata.pooling or "mean") if pooling == "auto" else pooling)
        if has_query is None:
            has_query = metadata.target is not None and "attention" in metadata.poolings
        if "attention" in poolings and (not has_query or layers != recorded):
            expected = "this model has learned none for that layer, only finetune makes some"
            raise ConfigError("pooling", pooling, expected)
        return Representation(layers=layers, poolings=poolings, layer_dim=shape.dim)

    def slices(self, *, per_residue: bool) -> list[dict[str, Any]]:
        """Describe which columns of a vector belong to which pooling of which layer; a residue's have no pooling."""
        poolings = (None,) if per_residue else self.poolings
        parts = [(pooling, layer) for pooling in poolings for layer in self.layers]
        return [
            {
                "pooling": pooling,
                "layer": layer,
                "start": number * self.layer_dim,
                "stop": (number + 1) * self.layer_dim,
            }
            for number, (pooling, layer) in enumerate(parts)
        ]
