"""The model card: what a model is, how it was made, what it can and cannot do."""

import re
from collections.abc import Mapping

from protembed._version import __version__
from protembed.config.common import TASKS
from protembed.model.checkpoint import Checkpoint
from protembed.model.formats import config_json, format_of, name_of
from protembed.model.metadata import ModelMetadata
from protembed.text import format_number, printable

_LOADING = """```python
from transformers import {class_name}

model = {class_name}.from_pretrained("this/directory")
```"""
_LOADING_ENCODER = """```python
from transformers import {class_name}

encoder = {class_name}.from_pretrained("this/directory"{options})
```

The head of the task is in `head.safetensors`, for protembed. The masked-LM head is that of the original model and was
not trained with the encoder."""


def describe_size(checkpoint: Checkpoint) -> str:
    """Describe the size of a model."""
    shape = checkpoint.encoder.shape
    millions = checkpoint.num_parameters / 1e6
    return f"{shape.num_layers} layers of width {shape.dim}, {shape.num_heads} heads, {millions:.1f} M parameters"


def _as_text(text: str) -> str:
    """Escape a name that a user chose, so that it cannot become markup."""
    escaped = re.sub(r"([\\`*_\[\]|#])", r"\\\1", printable(text))
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def model_card(title: str, summary: str, facts: Mapping[str, str], sections: Mapping[str, str], loading: str) -> str:
    """Assemble a model card: a title, a summary in Markdown, a table of facts in plain text, and sections in Markdown.

    The instructions for loading the model, in Markdown, are the last section.
    """
    rows = (f"| {_as_text(name)} | {_as_text(fact)} |" for name, fact in facts.items())
    parts = [f"# {title}", summary, "\n".join(["|  |  |", "| --- | --- |", *rows])]
    for heading, text in {**sections, "Loading": loading}.items():
        parts += [f"## {heading}", text]
    return "\n\n".join([*parts, f"Made by protembed {__version__}."]) + "\n"


def describe_loading(checkpoint: Checkpoint) -> str:
    """Describe in Markdown how transformers loads a model with its masked-LM head."""
    return _LOADING.format(class_name=format_of(checkpoint.encoder.shape).class_name)


def pretrained_card(checkpoint: Checkpoint, facts: Mapping[str, str]) -> str:
    """Describe a pretrained encoder in Markdown, with facts by name in the order of the card."""
    return model_card(
        "A protein language model",
        f"An {name_of(checkpoint.encoder.shape)} encoder ({describe_size(checkpoint)}), trained to predict masked "
        "amino acids. `protembed embed seqs.fasta -m DIRECTORY` turns proteins into vectors with it.",
        facts,
        {
            "Limits": "It has learned from the proteins it was trained on, and those of the model it started from if "
            "one is named, and from nothing else. Compare perplexities only between models that were validated on the "
            "same proteins with the same masked residues."
        },
        loading=describe_loading(checkpoint),
    )


def _training_facts(metadata: ModelMetadata) -> dict[str, str]:
    """Describe the proteins that a fine-tuned model was trained on."""
    data = metadata.training_data
    if data is None:
        return {}
    shortest, low, median, high, longest = data.lengths
    facts = {"residues that it was trained on": f"{metadata.region or 'all'} of each protein"}
    facts["lengths of training proteins"] = (
        f"{shortest:,} to {longest:,} residues, median {median:,}, nine of ten from {low:,} to {high:,}"
    )
    facts["training proteins that begin with M"] = f"{data.starts_with_met_fraction:.0%}"
    facts["training residues other than the 20 amino acids"] = f"{data.num_nonstandard_residues:,}"
    if data.class_counts is not None:
        unit = "residues" if TASKS[metadata.task or "regression"].per_residue else "training proteins"
        classes = ", ".join(f"{name} {number:,}" for name, number in data.class_counts.items())
        facts[f"{unit} of each class"] = classes
    if data.value_range is not None:
        facts["training values"] = f"{format_number(data.value_range[0])} to {format_number(data.value_range[1])}"
    facts["test proteins with relatives"] = (
        f"{data.num_tested_related:,} of {data.num_tested:,} share {data.kmer_length} residues in a row with a "
        "training protein (of the k-mers in `training_kmers.safetensors`)"
    )
    return facts


def _encoder_loading(checkpoint: Checkpoint) -> str:
    """Describe in Markdown how transformers loads the encoder without its masked-LM head."""
    shape = checkpoint.encoder.shape
    (class_name,) = config_json(shape, has_lm_head=False)["architectures"]
    return _LOADING_ENCODER.format(class_name=class_name, options=format_of(shape).encoder_options)


def finetuned_card(checkpoint: Checkpoint, facts: Mapping[str, str]) -> str:
    """Describe a fine-tuned model in Markdown, with facts by name in the order of the card."""
    metadata = checkpoint.metadata
    task = TASKS[metadata.task or "regression"]
    what = {"class": "one of {} classes", "labels": "any of {} labels", "value": "a value"}[task.label_kind]
    seen = f"the {' and '.join(metadata.poolings)} of its residues' vectors"
    return model_card(
        f"Predicts {_as_text(metadata.target or '')}",
        f"An {name_of(checkpoint.encoder.shape)} encoder ({describe_size(checkpoint)}) with a head on "
        f"{'the vector of each residue' if task.per_residue else seen}, which predicts "
        f"{what.format(len(metadata.classes or ()))} for each {'residue' if task.per_residue else 'protein'}. "
        "`protembed predict seqs.fasta -m DIRECTORY` applies it, and `protembed embed seqs.fasta -m DIRECTORY"
        f"{' --per-residue' if task.per_residue else ''}` gives the vectors that the head sees.",
        {**facts, **_training_facts(metadata)},
        {
            "Limits": "The metrics hold for proteins like those of the table (`protembed predict` warns of others), "
            "with 95 % intervals over test proteins. Relatives of training proteins in the test split make them "
            "optimistic: `report.html` and `test_similarity.tsv` show by how much."
        },
        loading=_encoder_loading(checkpoint),
    )
