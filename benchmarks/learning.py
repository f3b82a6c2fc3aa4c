"""Learning in equal time: transformers' Trainer and protembed, validated on the same masked residues.

    python benchmarks/learning.py train.fasta --valid valid.fasta [--size t4_1M] [--minutes 15] [--threads 2]
        [-o DIR] [--arms protembed,trainer] [-- further options of protembed pretrain]

Both run one after the other, with the same shape, crops, tokens per step and threads. The Trainer uses AdamW (betas 0.9
and 0.98, decay 0.01), a warm-up over the first tenth, and a linear decay to the end of its minutes, which begin when
its data are ready. protembed uses its defaults, and its minutes include reading and validating. Results of arms that
are not selected are read from DIR if they exist.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bootstrap import bootstrap_interval
from perplexity import Sums, predictor_of, protein_losses, stored_corpus
from protembed.config.common import MICRO_BATCH_TOKENS
from protembed.config.model_sizes import SIZES
from protembed.data.fasta import read_fasta
from protembed.model.checkpoint import load_checkpoint
from protembed.pretraining.batches import validation_batches

NUM_RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--size", default="t4_1M", choices=SIZES)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--crop-residues", type=int, default=256)
    parser.add_argument("--trainer-learning-rate", type=float, default=4e-4)
    parser.add_argument("-o", "--output", type=Path, default=Path("learning"))
    parser.add_argument("--arms", default="protembed,trainer")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])

    options.output.mkdir(parents=True, exist_ok=True)
    commands = {"protembed": protembed_command(options, words[end + 1 :]), "trainer": trainer_command(options)}
    for name in options.arms.split(","):
        train(commands[name], options.output / f"{name}.run", options.threads)

    losses, results = dict[str, Sums](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        corpus = stored_corpus(read_fasta([options.valid]), Path(folder) / "valid")
        micro_batches = validation_batches(corpus, options.crop_residues, MICRO_BATCH_TOKENS)
        for name in commands:
            run = options.output / f"{name}.run"
            if (run / "model").exists():
                predictor = predictor_of(load_checkpoint(run / "model"))
                losses[name], counts = protein_losses(predictor, micro_batches, len(corpus), options.threads)
                results[name] = metrics_of(run, losses[name].sum() / counts.sum())
    if len(losses) == 2:
        results["difference"] = paired_bootstrap(losses["protembed"] - losses["trainer"], counts)
    settings = {name: str(value) for name, value in vars(options).items()} | {"protembed": words[end + 1 :]}
    content = json.dumps({"settings": settings, "num_proteins": len(counts), **results}, indent=2)
    (options.output / "learning.json").write_text(content + "\n", encoding="utf-8")
    print(markdown(results))


# Training


def protembed_command(options: argparse.Namespace, extra: list[str]) -> list[str]:
    settings = {
        "--valid": options.valid,
        "--output": options.output / "protembed.run",
        "--size": options.size,
        "--max-minutes": options.minutes,
        "--threads": options.threads,
        "--batch-tokens": options.batch_tokens,
        "--crop-residues": options.crop_residues,
        "--device": "cpu",
    }
    words = [str(word) for setting in settings.items() for word in setting]
    return [sys.executable, "-m", "protembed", "pretrain", str(options.fasta), *words, "--force", "--quiet", *extra]


def trainer_command(options: argparse.Namespace) -> list[str]:
    settings = {
        "fasta": str(options.fasta),
        "output": str(options.output / "trainer.run"),
        "size": options.size,
        "minutes": options.minutes,
        "threads": options.threads,
        "batch_tokens": options.batch_tokens,
        "crop_residues": options.crop_residues,
        "learning_rate": options.trainer_learning_rate,
        "save_model": True,
    }
    return [sys.executable, str(Path(__file__).with_name("hf_trainer.py")), json.dumps(settings)]


def train(command: list[str], run: Path, threads: int) -> None:
    """Train an arm, and write the duration of the whole process to its run directory."""
    # PASSIVE: see hf_trainer.py; protembed has no OpenMP threads that could wait.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    (run / "seconds.json").write_text(json.dumps(time.perf_counter() - began), encoding="utf-8")


# Output


def metrics_of(run: Path, loss: float) -> dict[str, float]:
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        "loss": float(loss),
        "perplexity": float(np.exp(loss)),
        "steps": last["step"],
        "residues": last["residues"],
        "process_seconds": json.loads((run / "seconds.json").read_text(encoding="utf-8")),
    }


def paired_bootstrap(differences: Sums, counts: Sums) -> dict[str, float]:
    """Measure protembed's loss less the Trainer's, in nats, with a 95 % interval over resampled proteins."""
    low, high = bootstrap_interval(
        lambda rows: differences[rows].sum() / counts[rows].sum(), len(counts), num_resamples=NUM_RESAMPLES
    )
    return {"nats": float(differences.sum() / counts.sum()), "low": low, "high": high}


def markdown(results: dict[str, Any]) -> str:
    lines = ["| | perplexity | loss, nats | steps | residues seen | whole process, s |", "|---|---|---|---|---|---|"]
    for name in [name for name in results if name != "difference"]:
        arm = results[name]
        lines.append(
            f"| {name} | {arm['perplexity']:.3f} | {arm['loss']:.4f} | {arm['steps']:,} | {arm['residues']:,} "
            f"| {arm['process_seconds']:.0f} |"
        )
    if "difference" in results:
        nats, low, high = results["difference"].values()
        lines.append(f"\nprotembed less Trainer: {nats:+.4f} nats, 95 % interval {low:+.4f} to {high:+.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
