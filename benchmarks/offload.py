"""Measure a model that is computed layer by layer: time and peak memory, with random weights of ESM-2 3B's shape.

The model is written to a folder layer by layer, in bfloat16, embedded with, and deleted:

    python benchmarks/offload.py examples/proteins.fasta --folder /tmp/large --num-proteins 20 --precision bfloat16
"""

import argparse
import json
import shutil
import sys
import time
from itertools import islice
from pathlib import Path

import torch

from processes import run_measured
from protembed.config.model_sizes import SIZES
from protembed.data.fasta import read_fasta
from protembed.model.architectures import new_encoder, new_lm_head
from protembed.model.encoder import INIT_STD
from protembed.model.formats import config_json, format_of
from protembed.model.weights import split_weight, write_tensors


def write_model(size: str, directory: Path) -> None:
    """Write a model of a size with random weights in bfloat16, a shard for each layer."""
    shape, generator = SIZES[size], torch.Generator().manual_seed(0)
    with torch.device("meta"):
        parts = {"encoder": new_encoder(shape), "lm_head": new_lm_head(shape)}
    shapes = {
        f"{part}.{name}": value.shape for part, module in parts.items() for name, value in module.named_parameters()
    }
    shapes |= {"lm_head.bias": torch.Size([33])}
    weight_map = {}
    names = {name: stored for name, stored in format_of(shape).weight_names(shape).items() if name in shapes}
    for shard, group in _by_layer(names).items():
        tensors = {}
        for name in group:
            is_gamma = "norm" in name and name.endswith("weight")
            value = torch.ones(shapes[name]) if is_gamma else INIT_STD * torch.randn(shapes[name], generator=generator)
            tensors |= {stored: part.bfloat16() for stored, part in split_weight(value, names[name])}
        write_tensors(tensors, directory / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_text(json.dumps(config_json(shape)))


def _by_layer(names: dict[str, object]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        layer = name.split(".")[2] if name.startswith("encoder.layers.") else "rest"
        groups.setdefault(f"model-{layer}.safetensors", []).append(name)
    return groups


def main() -> None:
    """Write the model, embed with it in a process of its own, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="where the model is written, and deleted")
    parser.add_argument("--size", default="t36_3B")
    parser.add_argument("--num-proteins", type=int, default=20)
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    try:
        began = time.monotonic()
        write_model(options.size, options.folder)
        print(f"written in {time.monotonic() - began:.0f} s", flush=True)
        records = list(islice(read_fasta([options.fasta]), options.num_proteins))
        fasta = options.folder / "some.fasta"
        fasta.write_text("".join(f">{record.id}\n{record.sequence}\n" for record in records))
        command = [sys.executable, "-m", "protembed", "embed", fasta, "-m", options.folder, "--offload", "always"]
        command += ["--precision", options.precision, "-o", options.folder / "emb.npy"]
        usage = run_measured(command)
        num_residues = sum(len(record.sequence) for record in records)
        print(f"{options.precision}: {len(records)} proteins, {num_residues:,} residues in {usage.seconds:.0f} s")
        print(f"peak: {usage.private_bytes / 1e9:.2f} GB, {usage.peak_bytes / 1e9:.2f} GB with the pages of the files")
    finally:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
