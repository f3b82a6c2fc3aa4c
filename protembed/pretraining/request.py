"""What is to be trained, and where: what identifies a run, before anything is loaded. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protembed.config.base import as_plain_values
from protembed.config.pretrain import PretrainConfig, PretrainOptions
from protembed.io.output_paths import check_utf8_path
from protembed.io.reading import default_path, sha256_of_inputs
from protembed.io.result import RUN, Result
from protembed.model.catalog import locate_model
from protembed.model.metadata import MODEL_FILES

_CONTENTS = (
    *(RUN, "metrics.jsonl", "amino_acids.tsv", "confusions.tsv", "training.png", "report.html"),
    *("checkpoints/*", "corpus/*", "tensorboard/*"),
    *(f"model/{name}" for name in MODEL_FILES),
)
# Options that change neither the weights nor any metric beyond the order of sums; and those of a shape, which are
# recorded as one, if at all.
_NOT_IN_FINGERPRINT = (
    *("save_every_minutes", "keep_checkpoints", "compile", "shard", "tensorboard", "dry_run"),
    *("layers", "dim", "heads"),
)


def settings_of(options: PretrainOptions) -> dict[str, Any]:
    """Collect the options that shape the result, except paths."""
    config = options.pretrain
    values = as_plain_values(config, options.batches, options.masking, options.optimizer, options.reader)
    if options.reader.gaps == "error":
        del values["gaps"]  # runs of versions that could not drop them stay the same
    if config.teacher is None:
        del values["teacher_weight"]
    shape = {} if config.layers is None else {"shape": [config.layers, config.dim, config.heads]}
    return {name: value for name, value in values.items() if name not in _NOT_IN_FINGERPRINT} | shape


def run_fingerprint(fasta: Sequence[Path], options: PretrainOptions) -> dict[str, Any]:
    """Collect what identifies a run: the options that shape the result, and the hashes of the inputs."""
    config = options.pretrain
    return {
        **options.as_given(),
        **settings_of(options),
        "fasta": sha256_of_inputs(fasta),
        "valid": sha256_of_inputs(config.valid),
        "clusters": None if config.clusters is None else sha256_of_inputs([config.clusters]),
        "init_from": None if config.init_from is None else locate_model(config.init_from).sha256(),
        "compare_model": None if config.compare_model is None else locate_model(config.compare_model).sha256(),
        **({} if config.teacher is None else {"teacher": locate_model(config.teacher).sha256()}),
    }


def run_result(fasta: Sequence[Path], config: PretrainConfig) -> Result:
    """Describe the run directory, and check that it may be written.

    Raises:
        OutputExistsError: There is something else, or an input.
        ConfigError: The path is not valid UTF-8.
    """
    models = (model for model in (config.init_from, config.teacher, config.compare_model) if model)
    inputs = [*fasta, *config.valid, *models]
    output = config.output or default_path(fasta[0], ".run")
    result = Result(output, inputs, force=config.force, run=RUN, contents=_CONTENTS)
    check_utf8_path(result.path)
    return result
