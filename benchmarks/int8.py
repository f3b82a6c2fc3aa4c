"""Speed and accuracy of int8: a trained model in transformers' class, quantised by torch.ao and by torchao.

    python benchmarks/int8.py proteins.fasta [--model protembed_t6_8M] [--proteins 20] [--rounds 3]

Needs `pip install torchao`. Weights are quantised once and the inputs of each product as they come, without
calibration; attention, LayerNorm and embeddings stay in float32. All arms take the same proteins one by one, in turn,
on one thread; the first round is not counted. Prints the CPU seconds, and the cosine of each protein's vector with that
in float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.ao.quantization import quantize_dynamic
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from transformers import AutoModelForMaskedLM, AutoTokenizer

from protembed.data.fasta import read_fasta
from protembed.model.catalog import locate_model

MAX_RESIDUES = 1022

Vectors = NDArray[np.float32]
Embed = Callable[[list[str]], Vectors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--model", default="protembed_t6_8M")
    parser.add_argument("--proteins", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = (record for record in read_fasta([options.fasta]) if len(record.sequence) <= MAX_RESIDUES)
    sequences = [record.sequence for record in islice(records, options.proteins)]
    arms = make_arms(locate_model(options.model).directory)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    vectors = {}
    for _ in range(options.rounds + 1):
        for name, embed in arms.items():
            began = time.process_time()
            vectors[name] = embed(sequences)
            seconds[name].append(time.process_time() - began)
    print_table({name: times[1:] for name, times in seconds.items()}, vectors, sum(map(len, sequences)))


def make_arms(directory: Path) -> dict[str, Embed]:
    tokenizer = AutoTokenizer.from_pretrained(directory)

    def load(dtype: torch.dtype = torch.float32) -> nn.Module:
        model = AutoModelForMaskedLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa")
        return model.base_model.eval()

    def embedding(model: nn.Module) -> Embed:
        @torch.inference_mode()
        def embed(sequences: list[str]) -> Vectors:
            inputs = (tokenizer([sequence], return_tensors="pt") for sequence in sequences)
            states = (model(**each)[0][0, 1:-1] for each in inputs)  # (residues, dim)
            return np.stack([each.float().mean(0).numpy() for each in states])

        return embed

    torch.backends.quantized.engine = "onednn"  # faster than x86
    by_torchao = load()
    quantize_(by_torchao, Int8DynamicActivationInt8WeightConfig())
    models = {
        "float32": load(),
        "bfloat16": load(torch.bfloat16),
        "int8, torch.ao": quantize_dynamic(load(), {nn.Linear}, dtype=torch.qint8),
        "int8, torchao": by_torchao,
    }
    return {name: embedding(model) for name, model in models.items()}


def print_table(seconds: dict[str, list[float]], vectors: dict[str, Vectors], num_residues: int) -> None:
    print("| | residues per CPU second | times float32 | mean cosine | worst cosine |\n|---|---|---|---|---|")
    reference = vectors["float32"]
    for name, times in seconds.items():
        ratios = [whole / part for whole, part in zip(seconds["float32"], times, strict=True)]
        lengths = np.linalg.norm(vectors[name], axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (vectors[name] * reference).sum(1) / lengths
        print(
            f"| {name} | {num_residues / statistics.median(times):,.0f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} – {max(ratios):.2f}) | {cosines.mean():.5f} | {cosines.min():.5f} |"
        )


if __name__ == "__main__":
    main()
