"""Inspection of attention: maps for each layer and head, statistics of heads, contacts, sites, figures and a page.

Imports torch only to compute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from protembed.attention.request import InspectionRequest
from protembed.attention.summary import AttentionSummary, BestContactHead, SiteSummary
from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.config.model_sizes import EncoderShape
from protembed.data.structures import structure_files
from protembed.io.fingerprint import make_fingerprint
from protembed.io.reading import Paths, as_paths, default_path, sha256_of_inputs, unchanged_inputs
from protembed.io.result import Result
from protembed.io.writing import output_errors, seekable_inputs
from protembed.model.catalog import locate_model
from protembed.model.metadata import MODEL_FILES

_RECORD = "meta.json"
_CONTENTS = (
    *(_RECORD, "report.html", "heads.tsv", "proteins.tsv", "sites.tsv", "structures.tsv", "contacts.tsv"),
    *("maps/protein-*.npz", "maps/protein-*.h5", "contacts/protein-*.tsv", "contacts/protein-*.rr"),
    *("figures/protein-*.png", "figures/protein-*.svg", "figures/heads.png", "figures/heads.svg"),
    *(f"model/{name}" for name in MODEL_FILES),
)


def inspect_attention(
    fasta: Paths, options: AttentionOptions | None = None, callbacks: Callbacks | None = None
) -> AttentionSummary:
    """Save attention maps for each layer and head, summarise each head over all proteins, and draw the maps.

    If the same command has made the directory before, nothing is computed.

    The output directory holds `report.html` with all results on one page, `heads.tsv` with what each head attends to,
    `proteins.tsv`, and for the first proteins `maps/protein-000001.npz` with `attention` (layer, head, residues,
    residues), `layers`, `heads`, and `contacts` and `rollout` where available, and `figures/protein-000001.png`. With
    structures, `contacts.tsv` has the precision of predicted contacts, `structures.tsv` the chain that matches each
    protein, `model/` the model with a fitted contact head, and `contacts/` the contacts, also as CASP's RR files.

    Args:
        fasta: FASTA files; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan, and the residues of each finished protein.

    Raises:
        ChangedInputError: A file changed while it was read.
        OutputExistsError: There is another result in the output directory.
        InsufficientResourcesError: The memory or the disk is too small.
        ProtembedError: The input, the model or the output is unsuitable, as described in `protembed.errors`.
    """
    options, callbacks, files = options or AttentionOptions(), callbacks or Callbacks(), as_paths("fasta", fasta)
    config, model = options.attention, locate_model(options.model.model)
    sites = [] if config.sites is None else [config.sites]
    inputs = [*files, *config.structures, *sites]
    result = _describe_result(config, [*inputs, model.directory])
    with unchanged_inputs(), seekable_inputs(inputs) as paths:
        fasta, structures = paths[: len(files)], paths[len(files) : len(files) + len(config.structures)]
        config = replace(config, structures=structures, sites=paths[-1] if sites else None)
        settings = {**as_plain_values(options.reader), **_settings(config, model.shape)}
        fingerprint = make_fingerprint(options, settings, model, fasta)
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _load_summary(claim.recorded, claim.output)
            from protembed.attention.inspection import inspect  # which imports torch

            with output_errors(claim.output):
                request = InspectionRequest(
                    model=model,
                    fasta=fasta,
                    options=replace(options, attention=config),
                    command=options.command_line(files),
                    file_names=[path.name for path in files],
                )
                summary, record = inspect(claim, request, callbacks)
                claim.publish({**fingerprint, **record})
            return summary


def _describe_result(config: AttentionConfig, inputs: Sequence[Path]) -> Result:
    """Describe the directory, named after the first of the inputs by default, and check that it may be written."""
    return Result(
        config.output or default_path(inputs[0], ".attention"),
        inputs,
        force=config.force,
        record=_RECORD,
        contents=_CONTENTS,
        is_record=lambda content: "summary" in content,
    )


def _settings(config: AttentionConfig, shape: EncoderShape) -> dict[str, Any]:
    """Collect the options that shape the result, and the hashes of the files that they name."""
    structures = [file for path in config.structures for file in structure_files(path)]
    return {
        **as_plain_values(config),
        "layers": [layer + 1 for layer in config.layer_indices(shape)],
        "heads": [head + 1 for head in config.head_indices(shape)],
        "structures": sha256_of_inputs(structures) if structures else None,
        "sites": None if config.sites is None else sha256_of_inputs([config.sites]),
    }


def _load_summary(recorded: Mapping[str, Any], output: Path) -> AttentionSummary:
    values = dict(recorded["summary"])
    # Results of earlier versions do not say what the heads are known for.
    best = values.pop("best_contact_head", None)
    return AttentionSummary(
        **{"num_heads": {}, **values, "output": output, "plan": None, "was_done": True}
        | {"sites": {label: SiteSummary(**site) for label, site in values["sites"].items()}},
        best_contact_head=None if best is None else BestContactHead(**best),
    )
