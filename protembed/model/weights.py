"""The files that store weights, under the names of an architecture's table.

Model directories name the same weights in several ways: LayerNorm's as `weight` and `bias` or as `gamma` and `beta`,
the rotary frequencies once, per layer, or not at all, the weights in one file or in shards, with the prefix `esm.` or,
saved from `EsmModel`, without it, and with the prefixes of modules that wrapped a model when it was saved.

Stored rotary frequencies are used unchanged, and computed only where none are stored: ESM-2 was trained in float16, and
its published files hold the rounded frequencies that it was trained with (0.3161621 where 0.3162277 is exact).
transformers keeps them for that reason. This was tested with files made for the purpose, never with the published ones.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from protembed.errors import ModelFormatError
from protembed.io.reading import is_utf8
from protembed.io.writing import write_blocks
from protembed.model.hf_format import ModelFormat
from protembed.model.untrusted import check_regular_file, read_model_json
from protembed.text import reason_of

WEIGHTS_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# ESM-2's largest model has a header of a hundred kilobytes; reading one of 100 MB takes 2 GB.
_MAX_HEADER_BYTES = 4 << 20
# Thirty times as many as ESM-2's largest model has; the names of tensors may claim any number of layers.
_MAX_LAYERS = 1_500
_LFS_POINTER = b"version "
# The numbers whose values are checked at once.
_BLOCK = 1 << 18
_FLOATS = ("F16", "BF16", "F32", "F64")
# How safetensors names the dtypes that protembed writes, in the order in which it stores their tensors.
_STORED_DTYPES = {torch.int64: "I64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}

# Prefixes of DataParallel, torch.compile, peft after its adapters were merged, and classes that hold the model.
_OUTER_PREFIX = re.compile(r"((module|_orig_mod|base_model|model)\.)*")
# Names of adapters, whose matrices are needed besides those of the model.
_ADAPTER = re.compile(r"(^|\.)(lora_\w+|ia3_\w+|base_layer|adapters?|modules_to_save)\.")
# In each layer, in all layers by a literal *, or above them, depending on the version of transformers.
_ROTARY = re.compile(r"esm\.(encoder\.layer\.(\d+|\*)\.attention\.self\.)?rotary_embeddings\.inv_freq")

# Modules that were renamed: run directories of earlier versions hold their weights under the former names.
_FORMER_MODULES = {
    "attention.project": "attention.qkv",
    "attention.output": "attention.out",
    "feed_forward.expand": "feed_forward.up",
    "feed_forward.contract": "feed_forward.down",
}
_FORMER_MODULE = re.compile(rf"(?<=\.)({'|'.join(map(re.escape, _FORMER_MODULES))})(?=\.)")


Value = TypeVar("Value")


def with_current_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Replace the former names of modules in the weights and optimiser states of a run.

    >>> list(with_current_names({"encoder.layers.0.attention.project.weight/exp_avg": torch.zeros(1)}))
    ['encoder.layers.0.attention.qkv.weight/exp_avg']
    """
    return {
        _FORMER_MODULE.sub(lambda match: _FORMER_MODULES[match[0]], name): tensor for name, tensor in tensors.items()
    }


def write_tensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, str] | None = None,
    read: Callable[[str], Tensor] | None = None,
) -> None:
    """Write tensors as safetensors, one after the other, to a temporary path of `protembed.io.writing`.

    The bytes are those of safetensors' `save_file`, which needs all tensors in memory.

    Args:
        tensors: The tensors by name; with `read`, tensors of their shapes and dtypes on any device.
        path: The temporary path.
        metadata: Texts by name, for the header.
        read: Reads the values of a tensor by its name, when they are written; None to take those of `tensors`.

    Raises:
        OSError: The file cannot be written.
    """
    names = sorted(tensors, key=lambda name: ([*_STORED_DTYPES].index(tensors[name].dtype), name))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": _STORED_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    values = map(read or tensors.__getitem__, names)
    write_blocks(path, chain([len(encoded).to_bytes(8, "little"), encoded], map(_as_bytes, values)))


def _as_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor in row-major order."""
    array: NDArray[np.uint8] = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()  # (bytes,)
    return array.data


def open_tensors(path: Path) -> Any:
    """Open a safetensors file of a model directory, as a context.

    Raises:
        ModelFormatError: The file is missing, damaged or outside the directory, or its header is far too large.
    """
    if not is_utf8(path):
        raise ModelFormatError(path, "safetensors cannot open a path that is not UTF-8", "rename the folder")
    try:
        with check_regular_file(path).open("rb") as stream:
            start = stream.read(8)
        if start == _LFS_POINTER:
            found = "this is a pointer of Git LFS instead of the weights"
            raise ModelFormatError(path, found, "run `git lfs pull` in the folder that was cloned")
        num_bytes = int.from_bytes(start, "little")
        if _MAX_HEADER_BYTES < num_bytes < path.stat().st_size:
            raise ModelFormatError(path, f"its header has {num_bytes:,} bytes, which no model needs")
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFormatError(path, f"missing or damaged ({reason_of(error)})") from error


def read_tensor(file: Any, name: str, path: Path) -> Tensor:
    """Read a floating-point tensor, in its stored precision, from a file that `open_tensors` has opened.

    The tensor may be a view of the mapped file: nothing is copied before it is converted or written to.

    Raises:
        ModelFormatError: The tensor has another type, or values that are not finite.
    """
    dtype = file.get_slice(name).get_dtype()
    if dtype not in _FLOATS:
        raise ModelFormatError(path, f"{name} is of type {dtype}", f"one of {', '.join(_FLOATS)} is expected")
    tensor: Tensor = file.get_tensor(name)
    # In blocks, because the intermediate results for a whole matrix are larger than the matrix.
    if not all(block.isfinite().all() for block in tensor.flatten().split(_BLOCK)):
        raise ModelFormatError(path, f"{name} holds values that are not finite")
    return tensor


def split_weight(value: Tensor, stored_names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Split one of protembed's weights into the stored ones whose rows it consists of, with their names."""
    for name, part in zip(stored_names, value.chunk(len(stored_names)), strict=True):
        yield name, part.contiguous()


def _table_name(name: str, prefix: str, encoder: str) -> str:
    """Translate a stored weight's name to that of the table, given the prefix of the encoder's weights in the files.

    `encoder` is that prefix in the table, such as `esm.`.
    """
    # When it saves, transformers names LayerNorm's parameters as in the paper, and elsewhere as torch does.
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    outer = prefix.removesuffix(encoder)
    if name.startswith(f"{outer}lm_head."):
        return name.removeprefix(outer)
    return f"{encoder}{name.removeprefix(prefix)}" if name.startswith(prefix) else name


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
        raise ModelFormatError(directory / _INDEX, "it names no shards")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not name or not name.isprintable() or Path(name).name != name:
            raise ModelFormatError(
                directory / _INDEX, f"a shard is named {name!r:.80}", "shards must lie beside their index"
            )
    return [directory / name for name in names]


def _copy_rows(parts: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Copy tensors of the same shape, one after the other, into the rows of a weight, in place; return the weight."""
    for rows, part in zip(weight.chunk(len(parts)), parts, strict=True):
        rows.copy_(part)
    return weight


class WeightFiles:
    """The tensors of a directory, in one file or in several shards, under the names of the architecture's table.

    Args:
        directory: The model's directory.
        model_format: How models of its architecture are stored.
    """

    def __init__(self, directory: Path, model_format: ModelFormat) -> None:
        self._directory, self._format = directory, model_format
        self._files = ExitStack()
        self._location: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> "WeightFiles":
        files = [self._files.enter_context(open_tensors(path)) for path in _weight_files(self._directory)]
        stored = [(file, name) for file in files for name in file.keys()]  # noqa: SIM118  # not a dictionary
        prefix = self._prefix_of_encoder([name for _, name in stored])
        for file, name in stored:
            table_name = _table_name(name, prefix, self._format.prefix)
            if table_name in self._location and not torch.equal(
                self.tensor(table_name), read_tensor(file, name, self._directory).float()
            ):
                found = f"the weights have {table_name} twice, with different values"
                raise ModelFormatError(self._directory, found)
            self._location[table_name] = (file, name)
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def _prefix_of_encoder(self, names: Sequence[str]) -> str:
        """Find the prefix of the names of the encoder's weights; that of the table where there is no encoder."""
        adapters = [name for name in names if _ADAPTER.search(name)]
        if adapters:
            advice = "merge it into the model (peft: `model.merge_and_unload()`), and save that"
            raise ModelFormatError(self._directory, f"the weights hold an adapter ({adapters[0]:.80})", advice)
        encoder = self._format.prefix
        ending = self._format.embedding.removeprefix(encoder)
        prefixes = [name.removesuffix(ending) for name in names if name.endswith(ending)] or [encoder]
        class_name = self._format.class_name
        classes = f"{class_name.replace('ForMaskedLM', 'Model')} or {class_name}"
        advice = f"save the encoder alone, by `save_pretrained` of its {classes}"
        if len(prefixes) > 1:
            found = f"the weights hold several encoders, named {prefixes[0]!r:.80} and {prefixes[1]!r:.80}"
            raise ModelFormatError(self._directory, found, advice)
        if not _OUTER_PREFIX.fullmatch(prefixes[0].removesuffix(encoder)):
            found = f"the names of the encoder's weights begin with {prefixes[0]!r:.80}"
            raise ModelFormatError(self._directory, found, advice)
        return prefixes[0]

    def has(self, prefix: str) -> bool:
        """Check whether the name of any weight begins with a prefix, such as `lm_head.`."""
        return any(name.startswith(prefix) for name in self._location)

    def rotary_frequencies(self, num_pairs: int) -> Tensor | None:
        """Read the rotary frequencies of a head's pairs of coordinates, (pairs,), float32; None where none are stored.

        Raises:
            ModelFormatError: The values are not frequencies, or differ between layers.
        """
        names = sorted(name for name in self._location if _ROTARY.fullmatch(name))
        frequencies = [self.tensor(name) for name in names]
        for name, values in zip(names, frequencies, strict=True):
            if values.shape != (num_pairs,):
                found = f"{name} has shape {tuple(values.shape)}, not {(num_pairs,)}"
                raise ModelFormatError(self._directory, found, "the files do not belong together")
            if not (values > 0).all():
                raise ModelFormatError(self._directory, f"{name} holds values that are not positive")
            if not torch.equal(values, frequencies[0]):
                found = f"the rotary frequencies {name} differ from those of {names[0]}"
                raise ModelFormatError(self._directory, found, f"{self._format.name} has the same ones in all layers")
        return frequencies[0] if frequencies else None

    def check_tied_decoder(self) -> None:
        """Check that a masked-LM head has no separate decoder, which protembed would ignore and transformers would use.

        Raises:
            ModelFormatError: A decoder is stored and differs from the embedding.
        """
        decoder = self._format.decoder
        if decoder not in self._location:
            return
        if not torch.equal(self.tensor(decoder), self.tensor(self._format.embedding)):
            found = f"{decoder} differs from the embedding"
            advice = f"in {self._format.name} the two are one (tied): this is another model"
            raise ModelFormatError(self._directory, found, advice)

    def check_num_layers(self, num_layers: int) -> None:
        """Check that the layers of a configuration are stored, before anything is allocated for them.

        Raises:
            ModelFormatError: Other layers are stored, or far too many.
        """
        layer = re.compile(rf"{re.escape(self._format.layer_prefix)}(\d+)\.")
        matches = map(layer.match, self._location)
        layers = {int(match[1]) for match in matches if match is not None}
        if layers != set(range(num_layers)) and (layers or num_layers):
            found = f"config.json names {num_layers} layers, the weights have {len(layers)}"
            raise ModelFormatError(self._directory, found, "the files do not belong together")
        if num_layers > _MAX_LAYERS:
            raise ModelFormatError(
                self._directory, f"the model has {num_layers:,} layers", f"up to {_MAX_LAYERS:,} are read"
            )

    def tensor(self, name: str) -> Tensor:
        """Read one tensor, in float32.

        Raises:
            ModelFormatError: The tensor is missing, or holds no floating-point numbers.
        """
        return self._stored(name).float()

    def weight(self, names: Sequence[str], like: Tensor, device: torch.device) -> Tensor:
        """Read a weight that consists of the rows of stored tensors, from the mapped files into its dtype and place.

        A tensor that is stored in the requested dtype, and asked for on the CPU, is a view of the mapped file.

        Args:
            names: The stored tensors; several have the same shape.
            like: A tensor of the shape and dtype of the weight, on any device.
            device: The device of the weight.

        Raises:
            ModelFormatError: A tensor is missing, holds no floating-point numbers, or has another shape.
        """
        parts = self._parts(names, like.shape)
        if len(parts) == 1:
            return parts[0].to(device, like.dtype)
        return _copy_rows(parts, torch.empty(like.shape, dtype=like.dtype, device=device))

    def fill(self, weight: Tensor, names: Sequence[str]) -> None:
        """Read the rows of stored tensors into a weight, in place; raises the errors of `weight`."""
        _copy_rows(self._parts(names, weight.shape), weight)

    def _parts(self, names: Sequence[str], expected: torch.Size) -> list[Tensor]:
        """Read stored tensors, in their stored precision, whose rows are a weight of the expected shape."""
        parts = [self._stored(name) for name in names]
        shapes = [tuple(part.shape) for part in parts]
        if len(shapes) > 1 and (len(set(shapes)) > 1 or not shapes[0]):
            found = f"{names[0]} has shape {shapes[0]}, and {names[-1]} has {shapes[-1]}"
            raise ModelFormatError(self._directory, found, "the files do not belong together")
        shape = (len(parts) * shapes[0][0], *shapes[0][1:]) if len(parts) > 1 else shapes[0]
        if shape != tuple(expected):
            found = f"{names[0]} has shape {shape}, not {tuple(expected)}"
            raise ModelFormatError(self._directory, found, "the files do not belong together")
        return parts

    def _stored(self, name: str) -> Tensor:
        if name not in self._location:
            advice = f"{self._format.name} models have it when they are saved by transformers' save_pretrained"
            raise ModelFormatError(self._directory, f"the weights have no {name}", advice)
        file, stored_name = self._location[name]
        return read_tensor(file, stored_name, self._directory)
