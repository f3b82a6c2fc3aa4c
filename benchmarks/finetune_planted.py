"""Can fine-tuning learn a rule in random proteins that a linear head on the frozen encoder cannot?

    python benchmarks/finetune_planted.py MODEL [MODEL …] [--seeds N] [--epochs N]

A protein is positive if its numbers of alanines and leucines differ by at most one. Positions and all other residues
are random, so that no linear map of residue frequencies follows the rule, but one of an encoder's features can. MODEL
is a model or a run directory, or `random`: the shape t4_1M with random weights. Each seed draws other proteins and
seeds the training. Accuracy on 200 test proteins.
"""

import argparse
import csv
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from protembed import FinetuneConfig, FinetuneOptions, ModelConfig, finetune_model
from protembed.config.common import DeviceConfig
from protembed.config.finetune import FinetuneMethod
from protembed.config.model_sizes import SIZES
from protembed.model.checkpoint import new_checkpoint, save_checkpoint

NUM_PROTEINS = {"train": 480, "valid": 120, "test": 200}
NUM_RESIDUES = 24
MAX_OF_EACH = 6
OTHERS = "CDEFGHIKMNPQRSTVWY"
METHODS: tuple[FinetuneMethod, ...] = ("full", "lora")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    print("| start | seed | frozen | full | LoRA | diverged |\n|---|---|---|---|---|---|", flush=True)
    for name in arguments.models:
        rows = []
        for seed in range(arguments.seeds):
            accuracies, num_diverged = measure(name, seed, arguments.epochs)
            rows.append(accuracies)
            print_row(name, str(seed), accuracies, num_diverged)
        print_row(f"**{name}**", "mean", [mean(column) for column in zip(*rows, strict=True)], "")


def print_row(name: str, seed: str, accuracies: list[float], num_diverged: object) -> None:
    """Print a line of the table."""
    print(f"| {name} | {seed} |", *(f"{value:.3f} |" for value in accuracies), f"{num_diverged} |", flush=True)


def measure(name: str, seed: int, num_epochs: int) -> tuple[list[float], int]:
    """Fine-tune with each method; return the accuracies of frozen, full and LoRA, and the number of diverged runs."""
    with tempfile.TemporaryDirectory() as folder:
        table, model = Path(folder) / "planted.csv", Path(name)
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows([("id", "sequence", "label", "split"), *planted_proteins(seed)])
        if name == "random":
            model = Path(folder) / "random"
            save_checkpoint(new_checkpoint(SIZES["t4_1M"], "gaussian", seed), model, "# Random weights\n")
        accuracies, notes = dict[str, float](), list[str]()
        for method in METHODS:
            config = FinetuneConfig(
                output=Path(folder) / f"{method}.model",
                method=method,
                epochs=num_epochs,
                patience=num_epochs,
                batch_tokens=512,
                skip_random_baseline=True,
                seed=seed,
            )
            options = FinetuneOptions(finetune=config, model=ModelConfig(model=model), compute=DeviceConfig(threads=1))
            summary = finetune_model(table, options)
            assert summary.comparison is not None
            for baseline, scores in summary.comparison.predictors.items():
                accuracies[baseline] = scores["accuracy"].value or 0.0
            notes += summary.notes
    return [accuracies[name] for name in ("frozen", "fine-tuned", "LoRA")], sum("diverged" in note for note in notes)


def planted_proteins(seed: int) -> Iterator[tuple[str, str, str, str]]:
    """Draw proteins: identifier, sequence, label and split."""
    draw = random.Random(seed)
    splits = [split for split, count in NUM_PROTEINS.items() for _ in range(count)]
    for number, split in enumerate(splits):
        num_alanines, num_leucines = draw.randint(0, MAX_OF_EACH), draw.randint(0, MAX_OF_EACH)
        residues = [*"A" * num_alanines, *"L" * num_leucines]
        residues += [draw.choice(OTHERS) for _ in range(NUM_RESIDUES - len(residues))]
        draw.shuffle(residues)
        label = "near" if abs(num_alanines - num_leucines) <= 1 else "far"
        yield f"p{number}", "".join(residues), label, split


if __name__ == "__main__":
    main()
