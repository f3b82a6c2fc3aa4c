"""Package a finished pretraining as a bundled model: half precision, layer, metrics, card.

    python benchmarks/bundle_model.py RUN OUT --hardware WORDS [--layers FILE] [--contacts RESULT] [--quality FILE]

WORDS describe the hardware of the training, as in "2 threads of a CPU, float32". The files are those that
probe_layers.py and quality.py write with --json; RESULT is that of inspect-attention with structures, whose contact
head is packaged. train_bundled_model.sh runs the scripts in order: quality.py measures
the packaged model, and its results are added to the card afterwards.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import homology_search
import perplexity
import probe_layers
import quality
from pretrain import training_flops
from protembed.config.base import Config
from protembed.config.model_sizes import SIZES
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.io.reading import read_json
from protembed.io.writing import atomic_directory
from protembed.model.card import describe_loading, describe_size, model_card
from protembed.model.checkpoint import Checkpoint, load_checkpoint, write_checkpoint_files
from protembed.model.heads import ContactHead
from protembed.pretraining.corpus import open_corpora
from protembed.pretraining.report import pretraining_facts
from protembed.report.training_figures import draw_training
from protembed.training.schedule import TrainingSchedule

CURVE = "training.png"

USE = (
    "It comes with protembed: `embed`, `finetune` and `inspect-attention` use it without `--model`, so that `protembed "
    "embed seqs.fasta -o emb.npy` works offline and immediately. **It is small. For better vectors use an ESM-2 "
    "model**; `protembed models` lists some.{variants}"
)
NOT_FOR_VARIANTS = " **Do not rank variants with it: BLOSUM62 does that better.**"
DATA = (
    "The training proteins are Swiss-Prot (release 2014_01), a sample of TrEMBL, subsets of AMRFinder and ISfinder as "
    "prokka distributes them, and 17 RefSeq proteomes, without exact duplicates. UniProt content is © The UniProt "
    "Consortium, [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/); RefSeq is in the public domain. The "
    "weights are under the licence of protembed, MIT.\n\n"
    "The validation proteins are of other clusters at 30 % identity than all training proteins, and have no training "
    "protein with 50 % identity over half their length; `valid_strict` are those without one of 30 % over 80 %. "
    "Swiss-Prot contains many proteins of the common benchmark tasks: this model has seen their sequences, never their "
    "labels."
)
CURVE_TEXT = (
    "![Loss against residues seen]({curve})\n\n*The training loss is lower because some targets remain visible in "
    "training, whereas validation masks all of them. The model is that of the best validation, the last.*"
)
LIMITS = (
    "- It has {millions:.1f} million parameters and saw {residues:.0f} million residues. ESM-2 8M, of "
    "{esm2:.1f} million, saw about a million million. It has learned little beyond "
    "the composition of proteins and their local patterns.\n"
    "- It was trained on crops of {window} residues; longer proteins are computed in overlapping windows of that "
    "length.\n"
    "- Most of its training proteins are of Swiss-Prot, which favours well-studied organisms.\n"
    "- {contacts}\n"
    "{search}"
    "- Its perplexity is over the 20 amino acids with all targets replaced by `<mask>`; compare it only with values "
    "measured in this way on the same proteins."
)
SEARCH_INSTEAD = (
    "- To find relatives of a protein, use a search tool: even counts of 3-mers find more remote ones than these "
    "vectors do.\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=Path)
    parser.add_argument("--contacts", type=Path)
    parser.add_argument("--quality", type=Path)
    parser.add_argument("--hardware", required=True, help="the hardware and the precision of the training")
    options = parser.parse_args()

    measured: dict[str, Any] = {} if options.quality is None else dict(read_json(options.quality))
    if options.layers is not None:
        measured["layers"] = read_json(options.layers)
    checkpoint = load_checkpoint(options.run / "model")
    last = checkpoint.encoder.shape.num_layers
    layer = measured["layers"]["best_layer"] if "layers" in measured else last
    variants = variant_correlations(measured)
    contacts = {}
    if options.contacts is not None:
        contacts = fitted_contacts(options.contacts)
        checkpoint.contact_head = load_checkpoint(options.contacts / "model").contact_head
    found = {name: values for name, values in (("variants", variants), ("contacts", contacts)) if values}
    checkpoint.metadata = replace(checkpoint.metadata, layer=layer, metrics={**checkpoint.metadata.metrics, **found})
    is_worse_than_blosum62 = any(values["model"] < values["BLOSUM62"] for values in variants.values())
    card = model_card(
        options.output.name,
        f"An ESM-2 encoder ({describe_size(checkpoint)}), trained by protembed to predict masked amino acids. "
        f"{USE.format(variants=NOT_FOR_VARIANTS if is_worse_than_blosum62 else '')}",
        facts(checkpoint, options.run, options.hardware),
        {
            "Training": CURVE_TEXT.format(curve=CURVE),
            "Results": results(measured),
            "Data and licence": DATA,
            "Limits": LIMITS.format(
                millions=checkpoint.num_parameters / 1e6,
                esm2=SIZES["t6_8M"].num_parameters / 1e6,
                residues=checkpoint.metadata.metrics["residues_seen"] / 1e6,
                window=checkpoint.metadata.window_residues,
                contacts=describe_contacts(checkpoint.contact_head, contacts),
                search=SEARCH_INSTEAD if is_worse_than_3mers(measured) else "",
            ),
        },
        loading=describe_loading(checkpoint),
    )
    with atomic_directory(options.output) as directory:
        write_checkpoint_files(checkpoint, directory, card, dtype=torch.float16)
        draw_training(directory / CURVE, read_log(options.run), title=options.output.name)


def facts(checkpoint: Checkpoint, run: Path, hardware: str) -> dict[str, str]:
    """Collect the recipe and the compute from a finished run."""
    settings, train = checkpoint.metadata.configuration, open_corpora(run / "corpus").train
    batches = chosen(BatchConfig, settings)
    masking, plan = chosen(MaskingConfig, settings), TrainingSchedule(**read_json(run / "run.json")["plan"])
    flops = checkpoint.metadata.metrics["residues_seen"] * training_flops(
        checkpoint.encoder.shape, train.lengths, batches.crop_residues, masking.mask_rate
    )
    return {
        **pretraining_facts(checkpoint.metadata, train, batches, masking, plan),
        "recipe": f"benchmarks/train_bundled_model.sh, seed {settings['seed']}",
        "compute": f"{steps_in_minutes(read_log(run)):.0f} minutes of steps on {hardware}; "
        f"{flops:.1e} FLOP in matrix products",
        "stored": "half precision, rotary frequencies in float32; read and measured as float32",
        "vectors": f"the mean over the residues in layer {checkpoint.metadata.layer} of "
        f"{checkpoint.encoder.shape.num_layers}",
    }


def chosen(kind: type[Any], settings: Mapping[str, Any]) -> Any:
    """Make a config from the recorded settings of a command."""
    assert issubclass(kind, Config)
    return kind(**{spec.name: settings[spec.name] for spec in dataclasses.fields(kind)})


def read_log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def steps_in_minutes(lines: list[dict[str, Any]]) -> float:
    """Sum the duration of a run's steps, without validations and saving."""
    residues = np.diff([line["residues"] for line in lines], prepend=0)
    return float((residues / [line["residues_per_second"] for line in lines]).sum() / 60)


def is_worse_than_3mers(measured: Mapping[str, Any]) -> bool:
    return "homology" in measured and measured["homology"]["fractions"][perplexity.MODEL]["gain_high"] < 0


def fitted_contacts(result: Path) -> dict[str, float]:
    """Read how precise a contact head is that was fitted to structures by inspect-attention, on structures held out."""
    (row,) = (
        row
        for row in read_json(result / "meta.json")["summary"]["precisions"]
        if (row["predictor"], row["range"], row["pairs"]) == ("regression", "long", "L")
    )
    precision, random = (round(row[name], 3) for name in ("precision", "random"))
    return {"precision": precision, "random": random, "num_structures": row["proteins"]}


def describe_contacts(head: ContactHead, contacts: Mapping[str, float]) -> str:
    if not head.is_fitted:
        return "The contact head is not fitted."
    num_used, num_heads = int(head.weight.count_nonzero()), head.weight.numel()
    return (
        "The contact head is a logistic regression with an L1 penalty, which gave weights to "
        f"{num_used} of {num_heads} heads, fitted to {contacts['num_structures']} structures. Fitted to others, it "
        f"found {contacts['precision']:.1%} true contacts among the L most likely long-range pairs (random pairs: "
        f"{contacts['random']:.1%}): a rough guess."
    ).replace("%", " %")


def variant_correlations(measured: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Collect the Spearman correlations that `score` warns with: of the model, and of BLOSUM62."""
    correlations = {}
    for table, methods in measured.get("variants", {}).items():
        found = methods[quality.METHODS[0]]
        names = {"model": quality.MODEL, "BLOSUM62": quality.COUNTS}
        correlations[table.split("_")[0]] = {key: round(found[name]["value"], 3) for key, name in names.items()}
    return correlations


def results(measured: Mapping[str, Any]) -> str:
    """Format the results that are available."""
    parts = []
    if "model" in measured:
        parts.append(
            "Measured by `benchmarks/quality.py`, with 95 % intervals. The random initialisation has the same shape; "
            "published values of ESM-2 8M are on other proteins where noted."
        )
        parts.append(quality.markdown(measured))
    if "perplexity" in measured:
        window = measured["perplexity"]["window_residues"]
        parts.append(
            "Perplexity over the 20 amino acids; 15 % of the residues replaced by `<mask>`, windows of "
            f"{window} residues; intervals over proteins:"
        )
        parts.append(perplexity.markdown(measured["perplexity"]))
    if "homology" in measured:
        parts.append(
            "Remote relatives: queries are training proteins, each from another cluster at 30 % identity that has "
            "several clusters at 50 %. The database has a relative of each query from another 50 % cluster, and other "
            "random proteins. A query is correct if its nearest neighbour by cosine similarity, outside its 50 % "
            "cluster, is in its 30 % cluster; intervals over queries:"
        )
        parts.append(homology_search.markdown(measured["homology"]))
    if "layers" in measured:
        layers = measured["layers"]
        parts.append(
            f"The layer for embedding was chosen by a linear probe of {layers['num_labels']} cellular components "
            f"({layers['num_train']:,} training and {layers['num_valid']:,} validation proteins; the best value is "
            "slightly optimistic because it was chosen on them; intervals over proteins):"
        )
        parts.append(probe_layers.markdown(layers))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
