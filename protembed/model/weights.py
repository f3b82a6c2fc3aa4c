"""The table of Hugging Face weight names, and the files that store weights.

ESM-2 directories name the same weights in several ways: LayerNorm's as `weight` and `bias` or as `gamma` and `beta`,
the rotary frequencies once, per layer, or not at all, the weights in one file or in shards, with the prefix `esm.` or,
saved from `EsmModel`, without it, and with the prefixes of modules that wrapped a model when it was saved.

Stored rotary frequencies are used unchanged, and computed only where none are stored: ESM-2 was trained in float16, and
its published files hold the rounded frequencies that it was trained with (0.3161621 where 0.3162277 is exact).
transformers keeps them for that reason. This was tested with files made for the purpose, never with the published ones.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from protembed.config.model_sizes import EncoderShape
from protembed.errors import ModelFormatError, reason_of
from protembed.io.reading import is_utf8
from protembed.model.untrusted import check_regular_file, read_model_json

WEIGHTS_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# ESM-2's largest model has a header of a hundred kilobytes; reading one of 100 MB takes 2 GB.
_MAX_HEADER_BYTES = 4 << 20
# Thirty times as many as ESM-2's largest model has; the names of tensors may claim any number of layers.
_MAX_LAYERS = 1_500
_LFS_POINTER = b"version "
_SAVE_THE_ENCODER = "save the encoder alone, by `save_pretrained` of its EsmModel or EsmForMaskedLM"
_FLOATS = ("F16", "BF16", "F32", "F64")

_EMBEDDING, _DECODER = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
# Prefixes of DataParallel, torch.compile, peft after its adapters were merged, and classes that hold the model.
_PREFIX = re.compile(r"((module|_orig_mod|base_model|model)\.)*(esm\.)?")
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


def with_current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the former names of modules in the weights and optimiser states of a run.

    >>> list(with_current_names({"encoder.layers.0.attention.project.weight/exp_avg": torch.zeros(1)}))
    ['encoder.layers.0.attention.qkv.weight/exp_avg']
    """
    return {
        _FORMER_MODULE.sub(lambda match: _FORMER_MODULES[match[0]], name): tensor for name, tensor in tensors.items()
    }


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors to a temporary path of `protembed.io.writing`.

    Raises:
        OSError: The file cannot be written; safetensors raises another exception for a full disk.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        named = re.search(r"\(os error (\d+)\)", str(error))
        number = int(named[1]) if named else errno.EIO
        raise OSError(number, os.strerror(number) if named else str(error)) from error


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
            raise ModelFormatError(path, f"its header has {num_bytes:,} bytes, which no ESM-2 needs")
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFormatError(path, f"missing or damaged ({reason_of(error)})") from error


def read_tensor(file: Any, name: str, path: Path) -> Tensor:
    """Read a floating-point tensor, in float32, from a file that `open_tensors` has opened.

    Raises:
        ModelFormatError: The tensor has another type, or values that are not finite.
    """
    dtype = file.get_slice(name).get_dtype()
    if dtype not in _FLOATS:
        raise ModelFormatError(path, f"{name} is of type {dtype}", f"one of {', '.join(_FLOATS)} is expected")
    tensor: Tensor = file.get_tensor(name)
    if not tensor.isfinite().all():
        raise ModelFormatError(path, f"{name} holds values that are not finite")
    return tensor.to(torch.float32)


def rotary_name(layer: int) -> str:
    """Name a layer's copy of the rotary frequencies; transformers warns where it is missing."""
    return f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"


@dataclass(frozen=True)
class WeightMapping:
    """One of protembed's weights, and the stored weights whose rows it consists of."""

    stored_names: tuple[str, ...]

    def read(self, stored: "WeightFiles") -> Tensor:
        """Concatenate the stored weights, in float32."""
        parts = [stored.tensor(name) for name in self.stored_names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def split(self, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Split protembed's weight into the stored ones, with their names."""
        for name, part in zip(self.stored_names, value.chunk(len(self.stored_names)), strict=True):
            yield name, part.contiguous()


def weight_table(shape: EncoderShape) -> dict[str, WeightMapping]:
    """Map each of protembed's weights to its Hugging Face names; used in both directions, and defined nowhere else."""
    modules: dict[str, tuple[str, ...]] = {
        "encoder.final_norm": ("esm.encoder.emb_layer_norm_after",),
        "lm_head.dense": ("lm_head.dense",),
        "lm_head.layer_norm": ("lm_head.layer_norm",),
        "contact_head": ("esm.contact_head.regression",),
    }
    for index in range(shape.num_layers):
        layer, stored_layer = f"encoder.layers.{index}", f"esm.encoder.layer.{index}"
        projections = (f"{stored_layer}.attention.self.{name}" for name in ("query", "key", "value"))
        modules |= {
            f"{layer}.attention_norm": (f"{stored_layer}.attention.LayerNorm",),
            f"{layer}.attention.qkv": tuple(projections),
            f"{layer}.attention.out": (f"{stored_layer}.attention.output.dense",),
            f"{layer}.feed_forward_norm": (f"{stored_layer}.LayerNorm",),
            f"{layer}.feed_forward.up": (f"{stored_layer}.intermediate.dense",),
            f"{layer}.feed_forward.down": (f"{stored_layer}.output.dense",),
        }
    table = {"encoder.embedding.weight": WeightMapping((_EMBEDDING,)), "lm_head.bias": WeightMapping(("lm_head.bias",))}
    for module, stored_modules in modules.items():
        for kind in ("weight", "bias"):
            table[f"{module}.{kind}"] = WeightMapping(tuple(f"{stored}.{kind}" for stored in stored_modules))
    return table


def _table_name(name: str, prefix: str) -> str:
    """Translate a stored weight's name to that of `weight_table`, given the prefix of the encoder's weights."""
    # When it saves, transformers names LayerNorm's parameters as in the paper, and elsewhere as torch does.
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    outer = prefix.removesuffix("esm.")
    if name.startswith(f"{outer}lm_head."):
        return name.removeprefix(outer)
    return f"esm.{name.removeprefix(prefix)}" if name.startswith(prefix) else name


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


class WeightFiles:
    """The tensors of a directory, in one file or in several shards, under the names of `weight_table`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = ExitStack()
        self._location: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> "WeightFiles":
        files = [self._files.enter_context(open_tensors(path)) for path in _weight_files(self._directory)]
        stored = [(file, name) for file in files for name in file.keys()]  # noqa: SIM118  # not a dictionary
        prefix = self._prefix_of_encoder([name for _, name in stored])
        for file, name in stored:
            table_name = _table_name(name, prefix)
            if table_name in self._location and not torch.equal(
                self.tensor(table_name), read_tensor(file, name, self._directory)
            ):
                found = f"the weights have {table_name} twice, with different values"
                raise ModelFormatError(self._directory, found)
            self._location[table_name] = (file, name)
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def _prefix_of_encoder(self, names: Sequence[str]) -> str:
        """Find the prefix of the names of the encoder's weights; `esm.` where there is no encoder."""
        adapters = [name for name in names if _ADAPTER.search(name)]
        if adapters:
            advice = "merge it into the model (peft: `model.merge_and_unload()`), and save that"
            raise ModelFormatError(self._directory, f"the weights hold an adapter ({adapters[0]:.80})", advice)
        ending = _EMBEDDING.removeprefix("esm.")
        prefixes = [name.removesuffix(ending) for name in names if name.endswith(ending)] or ["esm."]
        if len(prefixes) > 1:
            found = f"the weights hold several encoders, named {prefixes[0]!r:.80} and {prefixes[1]!r:.80}"
            raise ModelFormatError(self._directory, found, _SAVE_THE_ENCODER)
        if not _PREFIX.fullmatch(prefixes[0]):
            found = f"the names of the encoder's weights begin with {prefixes[0]!r:.80}"
            raise ModelFormatError(self._directory, found, _SAVE_THE_ENCODER)
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
                raise ModelFormatError(self._directory, found, "ESM-2 has the same ones in all layers")
        return frequencies[0] if frequencies else None

    def check_tied_decoder(self) -> None:
        """Check that a masked-LM head has no separate decoder, which protembed would ignore and transformers would use.

        Raises:
            ModelFormatError: A decoder is stored and differs from the embedding.
        """
        if _DECODER in self._location and not torch.equal(self.tensor(_DECODER), self.tensor(_EMBEDDING)):
            found = f"{_DECODER} differs from the embedding"
            raise ModelFormatError(self._directory, found, "in ESM-2 the two are one (tied): this is another model")

    def check_num_layers(self, num_layers: int) -> None:
        """Check that the layers of a configuration are stored, before anything is allocated for them.

        Raises:
            ModelFormatError: Other layers are stored, or far too many.
        """
        matches = (re.match(r"esm\.encoder\.layer\.(\d+)\.", name) for name in self._location)
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
        if name not in self._location:
            advice = "protembed reads ESM-2 models in Hugging Face layout, as transformers saves them"
            raise ModelFormatError(self._directory, f"the weights have no {name}", advice)
        file, stored_name = self._location[name]
        return read_tensor(file, stored_name, self._directory)
