"""Pretraining: from FASTA files to a run directory with a model. Imports torch only to compute."""

import time
from collections.abc import Mapping
from typing import Any

from protembed.callbacks import Callbacks
from protembed.config.pretrain import PretrainOptions
from protembed.errors import ConfigError, RunMismatchError
from protembed.io.fingerprint import differences
from protembed.io.reading import Paths, as_paths, unchanged_inputs
from protembed.io.result import IDENTITY, Result
from protembed.pretraining.report import FINISHED, PretrainPlan, PretrainSummary, load_summary
from protembed.pretraining.request import run_fingerprint, run_result


def plan_pretraining(fasta: Paths, options: PretrainOptions | None = None) -> PretrainPlan:
    """Plan what `pretrain_model` would do, with measured time and memory; no file is left.

    Args:
        fasta: FASTA files of the training proteins; `-` is stdin.
        options: All options of the command; the defaults if None.

    Raises:
        ProtembedError: If the input or the options do not allow it; see `protembed.errors`.
    """
    started, options, files = time.monotonic(), options or PretrainOptions(), as_paths("fasta", fasta)
    result = run_result(files, options.pretrain)
    with unchanged_inputs():
        fingerprint = run_fingerprint(files, options)
        from protembed.pretraining.run import plan_run

        return plan_run(result, files, options, fingerprint, started)


def pretrain_model(
    fasta: Paths, options: PretrainOptions | None = None, callbacks: Callbacks | None = None
) -> PretrainSummary:
    """Train an encoder to predict masked amino acids; the same call resumes an interrupted run.

    Under torchrun all processes make the same call and share the work.

    Args:
        fasta: FASTA files of the training proteins; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan and the report of each step, and may stop the run.

    Raises:
        ProtembedError: If the input, the options or the run directory do not allow it; see `protembed.errors`.
    """
    started, files = time.monotonic(), as_paths("fasta", fasta)
    options, callbacks = options or PretrainOptions(), callbacks or Callbacks()
    if options.pretrain.dry_run:
        raise ConfigError("dry_run", True, "plan_pretraining makes the plan of a run without training")
    result = run_result(files, options.pretrain)
    with unchanged_inputs():
        fingerprint = run_fingerprint(files, options)
        finished = None if options.pretrain.force else _finished_summary(result, fingerprint)
        if finished is not None:
            return finished
        from protembed.pretraining.run import run_pretraining

        return run_pretraining(result, files, options, fingerprint, started, callbacks)


def _finished_summary(result: Result, fingerprint: Mapping[str, Any]) -> PretrainSummary | None:
    """Return the summary of a finished run of the same command; None if the run is not finished.

    Raises:
        RunMismatchError: The run is one of another command.
    """
    run = result.read_run() or {}
    if FINISHED not in run:  # it is not, or an earlier version has written it
        return None
    if found := differences(run[IDENTITY], fingerprint):
        raise RunMismatchError(result.path, found)
    return load_summary(result.path, run[FINISHED])
