"""Speed of pretraining: transformers' Trainer and protembed in turn.

    python benchmarks/pretrain.py data.fasta --valid valid.fasta [--size t6_8M] [--threads 2] [--rounds 5] [--json FILE]
        [--precisions float32 bfloat16] [--optimizer adamw] [--arms protembed …]

Both train the same shape on the same proteins with the same number of tokens per step, the same number of threads and,
unless `--optimizer` chooses another for protembed, the same optimiser, AdamW; each run is a separate process. In
bfloat16 the Trainer uses autocast. Residues are counted without padding, and the first two steps are not counted. The
roofline is the speed at which the matrix products alone would run at the best rate measured in float32.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processes import run_measured
from protembed.config.model_sizes import SIZES, EncoderShape
from protembed.data.fasta import read_fasta
from roofline import machine, matrix_rate_in_subprocess

NUM_VALID, WARMUP_STEPS = 50, 2
# The Trainer's grouping sorts every 50 batches from long to short crops: fewer steps would see only the long ones.
NUM_STEPS = WARMUP_STEPS + 50
MASK_RATE, NUM_AMINO_ACIDS = 0.15, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--size", default="t6_8M", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--crop-residues", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--arms", nargs="+", default=["transformers Trainer", "protembed"], choices=COMMANDS)
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "muon"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.steps <= WARMUP_STEPS:
        parser.error(f"--steps must exceed {WARMUP_STEPS}, which are not counted")

    lengths = np.array([len(record.sequence) for record in read_fasta([options.fasta])])
    flops = training_flops(SIZES[options.size], lengths, options.crop_residues, MASK_RATE)
    arms: dict[str, list[dict[str, float]]] = defaultdict(list)
    rates = []
    for _ in range(options.rounds):
        rates.append(matrix_rate_in_subprocess(options.threads))
        for precision, tool in itertools.product(options.precisions, options.arms):
            runs = arms[f"{tool}, {precision}"]
            with tempfile.TemporaryDirectory() as folder:
                runs.append(
                    measure(COMMANDS[tool](options, precision, Path(folder)), Path(folder) / "run", options.threads)
                )
            print(f"{tool}, {precision}: {runs[-1]['residues_per_second']:,.0f} residues/s", file=sys.stderr)
    results = {
        "size": options.size,
        "steps": options.steps,
        "crop_residues": options.crop_residues,
        "batch_tokens": options.batch_tokens,
        "optimizer": options.optimizer,
        "threads": options.threads,
        "machine": machine(),
        "matrix_gflops": max(rates) / 1e9,
        "training_mflop_per_residue": flops / 1e6,
        "roofline_residues_per_second": max(rates) / flops,
        "runs": arms,
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(markdown(results))


# Arms


def trainer_command(
    options: argparse.Namespace, precision: str, folder: Path, *, is_compiled: bool = False
) -> list[str]:
    settings = {
        "fasta": str(options.fasta),
        "output": str(folder / "run"),
        "size": options.size,
        "steps": options.steps,
        "threads": options.threads,
        "batch_tokens": options.batch_tokens,
        "crop_residues": options.crop_residues,
        "precision": precision,
        "is_compiled": is_compiled,
    }
    return [sys.executable, str(Path(__file__).with_name("hf_trainer.py")), json.dumps(settings)]


def protembed_command(options: argparse.Namespace, precision: str, folder: Path) -> list[str]:
    valid = folder / "valid.fasta"
    records = itertools.islice(read_fasta([options.valid]), NUM_VALID)
    valid.write_text("".join(f">{record.id}\n{record.sequence}\n" for record in records), encoding="utf-8")
    settings = {
        "--valid": valid,
        "--output": folder / "run",
        "--size": options.size,
        "--steps": options.steps,
        "--threads": options.threads,
        "--batch-tokens": options.batch_tokens,
        "--crop-residues": options.crop_residues,
        "--validate-every": 1_000_000,
        "--save-every": 1_000_000,
        "--optimizer": options.optimizer,
        "--device": "cpu",
        "--precision": precision,
    }
    words = [str(word) for setting in settings.items() for word in setting]
    return [sys.executable, "-m", "protembed", "pretrain", str(options.fasta), *words, "--force", "--quiet"]


COMMANDS = {
    "transformers Trainer": trainer_command,
    "transformers Trainer, compiled": partial(trainer_command, is_compiled=True),
    "protembed": protembed_command,
}


def measure(command: list[str], run: Path, threads: int) -> dict[str, float]:
    """Run a command to its end and read its log."""
    # PASSIVE: see hf_trainer.py; protembed has no OpenMP threads that could wait.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    usage = run_measured(command, environment)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    residues = np.diff([line["residues"] for line in lines], prepend=0)[WARMUP_STEPS:]
    seconds = residues / np.array([line["residues_per_second"] for line in lines])[WARMUP_STEPS:]
    return {
        "residues_per_second": float(residues.sum() / seconds.sum()),
        "residues_per_step": float(residues.mean()),
        "process_seconds": usage.seconds,
        "peak_bytes": usage.peak_bytes,
    }


# The roofline


def training_flops(shape: EncoderShape, lengths: NDArray[np.int64], crop_residues: int, mask_rate: float) -> float:
    """Count the operations of the matrix products, forward and twice as many backward, per residue of a crop."""
    residues = np.minimum(lengths, crop_residues)
    # A crop has <cls> or <eos> only if it touches an end of the protein.
    tokens = residues + 2 / (lengths - residues + 1)
    layers = shape.num_layers * (24 * shape.dim**2 + 4 * tokens * shape.dim)
    lm_head = mask_rate * 2 * (shape.dim**2 + NUM_AMINO_ACIDS * shape.dim)
    return float(3 * (tokens * (layers + lm_head)).sum() / residues.sum())


# Output


def markdown(results: dict[str, Any]) -> str:
    facts, roofline = results["machine"], results["roofline_residues_per_second"]
    lines = [
        f"{results['size']}, crops of {results['crop_residues']} residues, steps of {results['batch_tokens']:,} "
        f"tokens, {results['threads']} threads on {facts['cores']} cores, torch {facts['torch']}, transformers "
        f"{facts['transformers']}; roofline {roofline:,.0f} residues/s ({results['matrix_gflops']:.0f} GFLOP/s, "
        f"{results['training_mflop_per_residue']:.1f} MFLOP a residue)\n",
        "| | residues/s, median | range | of the roofline | residues per step | peak memory, MB | whole process, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results["runs"].items():
        rates = [run["residues_per_second"] for run in runs]
        per_step, seconds, peak = (
            statistics.median(run[key] for run in runs)
            for key in ("residues_per_step", "process_seconds", "peak_bytes")
        )
        middle = statistics.median(rates)
        of_roofline = f"{middle / roofline:.0%}" if name.endswith("float32") else ""
        lines.append(
            f"| {name} | {middle:,.0f} | {min(rates):,.0f} – {max(rates):,.0f} | {of_roofline} "
            f"| {per_step:,.0f} | {peak / 1e6:,.0f} | {seconds:.0f} |"
        )
    lines.append("")
    last = list(results["runs"])[-1]
    lines += [f"- {last} / {name}: {ratio(results, last, name)}" for name in results["runs"] if name != last]
    return "\n".join(lines)


def ratio(results: dict[str, Any], left: str, right: str) -> str:
    """Write the median ratio of the speeds of two arms over the rounds, and its range."""
    speeds = ([run["residues_per_second"] for run in results["runs"][name]] for name in (left, right))
    ratios = [speed / reference for speed, reference in zip(*speeds, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"


if __name__ == "__main__":
    main()
