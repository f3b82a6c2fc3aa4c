"""The one table of Hugging Face weight names, and the files where weights are stored.

ESM-2 directories spell the same weights in several ways: LayerNorm's as `weight` and `bias` or as `gamma` and `beta`,
the rotary frequencies once, per layer, or not at all (they are computed, never read), the weights in one file or in
shards.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from protembed.config.shapes import EncoderShape
from protembed.errors import ModelFormatError
from protembed.inputs import is_utf8
from protembed.model.own_files import own_file, read_model_json

WEIGHTS_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# ESM-2's largest model has a header of a hundred kilobytes; one of 100 MB takes 2 GB to be read.
_MOST_HEADER_BYTES = 4 << 20
# Thirty times as many as ESM-2's largest model has; names alone, without numbers, may promise any number.
_MOST_LAYERS = 1_500
_AGAIN = "fetch or make the model again"
_FLOATS = ("F16", "BF16", "F32", "F64")


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors to a temporary path of `files.py`.

    Raises:
        OSError: they cannot be written; safetensors has an exception of its own for a full disk.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def open_tensors(path: Path) -> Any:
    """Open a safetensors file of a model directory, as a context.

    Raises:
        ModelFormatError: it is not there, damaged, not the directory's own, or its header is there to fill memory.
    """
    if not is_utf8(path):
        raise ModelFormatError(path, "safetensors opens no path that is not UTF-8", "rename the folder")
    try:
        with own_file(path).open("rb") as stream:
            num_bytes = int.from_bytes(stream.read(8), "little")
        if _MOST_HEADER_BYTES < num_bytes < path.stat().st_size:
            raise ModelFormatError(path, f"its header has {num_bytes:,} bytes, which no ESM-2 needs", _AGAIN)
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFormatError(path, f"missing or damaged ({error})", _AGAIN) from error


def read_tensor(file: Any, name: str, path: Path) -> Tensor:
    """Read a tensor of numbers, in float32, from what `open_tensors` has opened.

    Raises:
        ModelFormatError: it holds anything but finite floating-point numbers.
    """
    dtype = file.get_slice(name).get_dtype()
    if dtype not in _FLOATS:
        raise ModelFormatError(path, f"{name} is of type {dtype}", f"one of {', '.join(_FLOATS)} is expected")
    tensor: Tensor = file.get_tensor(name)
    if not tensor.isfinite().all():
        raise ModelFormatError(path, f"{name} holds what is no finite number", "fetch or make the model again")
    return tensor.to(torch.float32)


@dataclass(frozen=True)
class Weight:
    """One of our weights, and the stored ones it consists of, one below the other."""

    stored_names: tuple[str, ...]

    def read(self, stored: "StoredWeights") -> Tensor:
        """Join the stored weights to ours, in float32."""
        parts = [stored.tensor(name) for name in self.stored_names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def stored(self, ours: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Divide our weight into the stored ones."""
        for name, part in zip(self.stored_names, ours.chunk(len(self.stored_names)), strict=True):
            yield name, part.contiguous()


def weight_table(shape: EncoderShape) -> dict[str, Weight]:
    """Map each of our weights to its Hugging Face names; the only place that knows those, in both directions."""
    modules: dict[str, tuple[str, ...]] = {
        "encoder.final_norm": ("esm.encoder.emb_layer_norm_after",),
        "lm_head.dense": ("lm_head.dense",),
        "lm_head.layer_norm": ("lm_head.layer_norm",),
        "contact_head": ("esm.contact_head.regression",),
    }
    for index in range(shape.num_layers):
        ours, theirs = f"encoder.layers.{index}", f"esm.encoder.layer.{index}"
        projections = (f"{theirs}.attention.self.{name}" for name in ("query", "key", "value"))
        modules |= {
            f"{ours}.attention_norm": (f"{theirs}.attention.LayerNorm",),
            f"{ours}.attention.project": tuple(projections),
            f"{ours}.attention.output": (f"{theirs}.attention.output.dense",),
            f"{ours}.feed_forward_norm": (f"{theirs}.LayerNorm",),
            f"{ours}.feed_forward.expand": (f"{theirs}.intermediate.dense",),
            f"{ours}.feed_forward.contract": (f"{theirs}.output.dense",),
        }
    table = {
        "encoder.embedding.weight": Weight(("esm.embeddings.word_embeddings.weight",)),
        "lm_head.bias": Weight(("lm_head.bias",)),
    }
    for ours, theirs_of_module in modules.items():
        for kind in ("weight", "bias"):
            table[f"{ours}.{kind}"] = Weight(tuple(f"{theirs}.{kind}" for theirs in theirs_of_module))
    return table


class StoredWeights:
    """The tensors of a directory, of one file or of several shards, under the names of our table."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = ExitStack()
        self._home: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> "StoredWeights":
        for path in _weight_files(self._directory):
            file = self._files.enter_context(open_tensors(path))
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                # transformers spells LayerNorm's parameters like its paper when it saves, and like torch elsewhere.
                ours = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
                self._home[ours] = (file, name)
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def expect_num_layers(self, num_layers: int) -> None:
        """Refuse a configuration that promises other layers than there are, before anything is allocated for them."""
        found = {int(match[1]) for name in self._home if (match := re.match(r"esm\.encoder\.layer\.(\d+)\.", name))}
        if found != set(range(num_layers)) and (found or num_layers):
            what = f"config.json names {num_layers} layers, the weights have {len(found)}"
            raise ModelFormatError(self._directory, what, "the files do not belong together")
        if num_layers > _MOST_LAYERS:
            raise ModelFormatError(
                self._directory, f"the model has {num_layers:,} layers", f"up to {_MOST_LAYERS:,} are read"
            )

    def tensor(self, name: str) -> Tensor:
        """Read one tensor, in float32.

        Raises:
            ModelFormatError: it is not there, or holds no floating-point numbers.
        """
        if name not in self._home:
            advice = "protembed reads ESM-2 models in Hugging Face layout, saved from EsmForMaskedLM"
            raise ModelFormatError(self._directory, f"the weights have no {name}", advice)
        file, stored_name = self._home[name]
        return read_tensor(file, stored_name, self._directory)


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS_FILE).exists():
        return [directory / WEIGHTS_FILE]
    if not (directory / _INDEX).exists():
        found = f"there is no {WEIGHTS_FILE}"
        advice = (
            "pickled weights are not read: save the model with transformers' save_pretrained, which writes safetensors"
        )
        raise ModelFormatError(directory, found, advice)
    index = read_model_json(directory / _INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelFormatError(directory / _INDEX, "it names no shards", _AGAIN)
    names = sorted(set(weight_map.values()))
    for name in names:
        if not name or not name.isprintable() or Path(name).name != name:
            raise ModelFormatError(
                directory / _INDEX, f"a shard is named {name!r:.80}", "shards must lie beside their index"
            )
    return [directory / name for name in names]


def rotary_name(layer: int) -> str:
    """Name the stored copy of the rotary frequencies, which transformers misses loudly where it is not there."""
    return f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
