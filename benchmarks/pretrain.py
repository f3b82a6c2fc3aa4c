"""How fast pretraining is: transformers' Trainer and protembed in turn.

    python benchmarks/pretrain.py data.fasta --valid valid.fasta [--size t6_8M] [--threads 2] [--rounds 5]

Both train the same shape on the same proteins with as many tokens a step and as many threads, each run in a process of
its own. Residues are real ones, without padding, after two steps of warming up. The floor is what the machine's
measured matrix products would allow if nothing else took time.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from protembed.config import SIZES, EncoderShape
from protembed.data.fasta import read_fasta

NUM_VALID, WARMUP_STEPS = 50, 2
MASK_RATE, NUM_AMINO_ACIDS = 0.15, 20
MATRIX, MATRIX_ROUNDS = 2048, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--size", default="t6_8M", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--crop-residues", type=int, default=512)
    options = parser.parse_args()

    lengths = np.array([len(record.sequence) for record in read_fasta([options.fasta])])
    flops = 3 * forward_flops(SIZES[options.size], np.minimum(lengths, options.crop_residues))
    arms = {"transformers Trainer": trainer_command, "protembed": protembed_command}
    rates: dict[str, list[float]] = {name: [] for name in arms}
    memory: dict[str, list[float]] = {name: [] for name in arms}
    products = []
    for _ in range(options.rounds):
        products.append(matrix_rate(options.threads))
        for name, command in arms.items():
            with tempfile.TemporaryDirectory() as folder:
                peak = run(command(options, Path(folder)), options.threads)
                rates[name].append(residues_per_second(Path(folder) / "run" / "metrics.jsonl"))
                memory[name].append(peak / 1e6)
    floor = statistics.median(products) / flops
    print(
        f"{options.size}, steps of {options.tokens_per_batch:,} tokens, crops of {options.crop_residues}, "
        f"{options.threads} threads, {options.rounds} alternating rounds, torch {torch.__version__}; matrix products "
        f"{statistics.median(products) / 1e9:,.0f} GFLOP/s, {flops / 1e6:,.1f} MFLOP a residue, floor {floor:,.0f} "
        "residues/s\n"
    )
    print("| | residues/s, median | range | share of the floor | peak memory, MB |\n|---|---|---|---|---|")
    for name, measured in rates.items():
        middle = statistics.median(measured)
        print(
            f"| {name} | {middle:,.0f} | {min(measured):,.0f} – {max(measured):,.0f} | {middle / floor:.2f} | "
            f"{statistics.median(memory[name]):,.0f} |"
        )
    ratios = [ours / theirs for theirs, ours in zip(*rates.values(), strict=True)]
    print(f"\nprotembed / Trainer, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; ", end="")
    print(f"median {statistics.median(ratios):.2f}")


def trainer_command(options: argparse.Namespace, folder: Path) -> Sequence[str]:
    settings = {
        "fasta": str(options.fasta),
        "output": str(folder / "run"),
        "size": options.size,
        "steps": options.steps,
        "threads": options.threads,
        "tokens_per_batch": options.tokens_per_batch,
        "crop_residues": options.crop_residues,
    }
    return [sys.executable, str(Path(__file__).with_name("hf_trainer.py")), json.dumps(settings)]


def protembed_command(options: argparse.Namespace, folder: Path) -> Sequence[str]:
    valid = folder / "valid.fasta"
    records = itertools.islice(read_fasta([options.valid]), NUM_VALID)
    valid.write_text("".join(f">{record.id}\n{record.sequence}\n" for record in records), encoding="utf-8")
    settings = {
        "--valid": valid,
        "--output": folder / "run",
        "--size": options.size,
        "--steps": options.steps,
        "--validate-every": options.steps,
        "--save-every": options.steps,
        "--threads": options.threads,
        "--tokens-per-batch": options.tokens_per_batch,
        "--crop-residues": options.crop_residues,
    }
    words = [str(word) for setting in settings.items() for word in setting]
    return [sys.executable, "-m", "protembed", "pretrain", str(options.fasta), *words, "--quiet"]


def run(command: Sequence[str], threads: int) -> int:
    """Run a command to its end; return its peak memory in bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def residues_per_second(log: Path) -> float:
    """Divide residues by seconds over all steps but the first ones."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    residues = np.diff([0, *(line["residues"] for line in lines)])[WARMUP_STEPS:]
    rates = np.array([line["residues_per_second"] for line in lines])[WARMUP_STEPS:]
    return float(residues.sum() / (residues / rates).sum())


def forward_flops(shape: EncoderShape, lengths: np.ndarray) -> float:
    """Count the matrix products of one residue's forward pass, averaged over residues."""
    layer = 12 * shape.dim**2
    weighted_length = (lengths**2).sum() / lengths.sum()  # the tokens that the average residue attends to
    lm_head = MASK_RATE * (shape.dim**2 + NUM_AMINO_ACIDS * shape.dim)
    return 2 * (shape.num_layers * (layer + 2 * weighted_length * shape.dim) + lm_head)


def matrix_rate(threads: int) -> float:
    """Measure float32 matrix products side by side, one operator thread each; FLOP a second."""

    def multiply(_: int) -> None:
        torch.set_num_threads(1)
        for _ in range(MATRIX_ROUNDS):
            torch.mm(matrix, matrix)

    matrix = torch.randn(MATRIX, MATRIX)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(multiply, range(threads)))
        began = time.perf_counter()
        list(pool.map(multiply, range(threads)))
        seconds = time.perf_counter() - began
    return threads * MATRIX_ROUNDS * 2 * MATRIX**3 / seconds


if __name__ == "__main__":
    main()
