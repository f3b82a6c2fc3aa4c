"""Fine-tune on a table of labelled proteins: from labels and a model to a model with a task head and its metrics.

Imports torch only to compute.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protembed.callbacks import Callbacks
from protembed.config.common import TASKS, Task, choose_region
from protembed.config.finetune import FinetuneMethod, FinetuneOptions
from protembed.data.fasta import ReadStatistics, SkippedRecord
from protembed.errors import ConfigError
from protembed.finetuning.comparison import METRICS_FILE, Comparison, is_report, read_comparison
from protembed.finetuning.label_cells import class_sort_key
from protembed.finetuning.label_inference import infer_labels
from protembed.finetuning.label_warnings import few_tested_warnings, label_warnings
from protembed.finetuning.labels import leave_out_unlabelled, read_labels
from protembed.finetuning.split_names import Split
from protembed.finetuning.splits import split_table
from protembed.finetuning.targets import TaskTable, check_labels, class_counts, cut_table
from protembed.io.faults import Faults
from protembed.io.fingerprint import Fingerprint
from protembed.io.output_paths import check_utf8_path
from protembed.io.reading import (
    PathLike,
    as_path,
    check_inputs,
    default_path,
    is_stream,
    sha256_of_inputs,
    unchanged_inputs,
)
from protembed.io.result import IDENTITY, RUN, Claim, Result
from protembed.io.tables import describe_traits
from protembed.io.writing import seekable_inputs
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.metadata import MODEL_FILES
from protembed.resources import environment_number

if TYPE_CHECKING:
    from protembed.training.distributed import ProcessGroup

_CONTENTS = (
    *(METRICS_FILE, "metrics.jsonl", "test_predictions.tsv", "test_similarity.tsv", "failed.tsv", "report.html"),
    *MODEL_FILES,
)


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """What is going to be trained, known before anything is computed.

    Attributes:
        output: The model directory that will be written.
        target: The name of the label's column.
        classes: The names of the classes or labels; None for values.
        class_counts: Proteins of each class or label, the most frequent first; empty for values.
        reading: A sentence that shows how three cells were read.
        num_proteins: Proteins of each split; for a cross-validation those of the final training.
        num_folds: The folds of a cross-validation; 1 where there is a test split.
        notes: Sentences about decisions that the options left open.
        warnings: Sentences about doubtful properties of the table or the model.
    """

    output: Path
    task: Task
    target: str
    classes: Sequence[str] | None
    class_counts: Mapping[str, int]
    reading: str
    method: FinetuneMethod
    num_proteins: Mapping[Split, int]
    num_folds: int
    notes: Sequence[str]
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FinetuneSummary:
    """The result of fine-tuning.

    Attributes:
        output: The model directory; None when the run was stopped before its end.
        comparison: The metrics of the model and its baselines on the test proteins; None when the run was stopped.
        notes: Sentences about the model and its metrics.
        was_done: Whether the same command had finished before.
    """

    output: Path | None
    task: Task
    comparison: Comparison | None
    notes: Sequence[str] = ()
    was_done: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether there is a model."""
        return self.output is not None


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """The tables of all splits, what is to be said about them, and the proteins that were skipped on request."""

    folds: Sequence[TaskTable]
    final: TaskTable
    reading: str
    notes: Sequence[str]
    warnings: Sequence[str]
    skipped: Sequence[SkippedRecord]


def _read_tables(labels: Path, options: FinetuneOptions) -> _Tables:
    """Read the table, infer the task, and split the proteins."""
    config, on_illegal, statistics = options.labels, options.reader.on_illegal, ReadStatistics()
    with Faults() as faults:
        table = read_labels(labels, config, reader=options.reader, statistics=statistics, faults=faults)
        inferred = infer_labels(table, config.task, config.label_separator)
        can_be_empty = inferred.task.label_kind == "labels"
        table = leave_out_unlabelled(inferred.labels, config, statistics, can_be_empty=can_be_empty)
        if faults.num_errors:
            check_labels(table, inferred.task, faults)
    table = cut_table(table, choose_region(config.region), inferred.task, on_illegal, statistics)
    data_split = split_table(table, inferred.task, config, options.finetune.seed)
    read_targets = partial(TaskTable.from_table, task=inferred.task, allows_rare=config.task != "auto")
    folds = list(map(read_targets, data_split.folds))
    final = read_targets(data_split.final) if len(folds) > 1 else folds[0]
    return _Tables(
        folds=folds,
        final=final,
        reading=inferred.reading,
        notes=[*describe_traits(table.traits), *table.notes, *data_split.notes],
        warnings=[
            *data_split.warnings,
            *statistics.warnings(),
            *table.warnings,
            *inferred.warnings,
            *label_warnings(final, folds),
            *few_tested_warnings(folds, is_drawn=config.split is not None or not table.has_splits),
        ],
        skipped=statistics.skipped,
    )


def _plan(output: Path, tables: _Tables, method: FinetuneMethod, model_warnings: Sequence[str]) -> FinetunePlan:
    final, counts = tables.final, class_counts(tables.final.proteins, tables.final.task)
    return FinetunePlan(
        output=output,
        task=final.task,
        target=final.target,
        classes=final.classes,
        class_counts=dict(sorted(counts.items(), key=lambda item: (-item[1], class_sort_key(item[0])))),
        reading=tables.reading,
        method=method,
        num_proteins=final.split_sizes,
        num_folds=len(tables.folds),
        notes=tables.notes,
        warnings=[*model_warnings, *tables.warnings],
    )


@contextmanager
def _joined_processes(options: FinetuneOptions) -> Iterator["ProcessGroup | None"]:
    """Join the processes that torchrun started; yield None for a single one.

    A single process imports torch only once the table has been read.
    """
    if environment_number("WORLD_SIZE", 1) == 1:
        yield None
        return
    from protembed.device import choose_device
    from protembed.training.distributed import errors_reported_once, joined_processes

    with joined_processes(choose_device(options.compute)) as processes, errors_reported_once(processes):
        yield processes


@contextmanager
def _claimed(
    result: Result, fingerprint: Fingerprint, callbacks: Callbacks, processes: "ProcessGroup | None"
) -> Iterator[Claim]:
    """Claim the result in the first process; the others wait until it has, and receive what it found."""
    if processes is None:
        with result.claim(fingerprint, callbacks) as claimed:
            yield claimed
        return
    with ExitStack() as stack:
        claim = stack.enter_context(result.claim(fingerprint, callbacks)) if processes.is_first else None
        found = None if claim is None else (str(claim.directory), claim.recorded)
        directory, recorded = processes.broadcast_object(found)
        yield claim or Claim(result, Path(directory), recorded)


def _summarise(output: Path, recorded: Mapping[str, Any], *, was_done: bool = False) -> FinetuneSummary:
    """Make the summary of a finished fine-tuning from its record."""
    return FinetuneSummary(
        output=output,
        task=TASKS[recorded["task"]],
        comparison=read_comparison(recorded),
        notes=recorded["notes"],
        was_done=was_done,
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A fine-tuning on a table that can be read twice.

    Attributes:
        command: Command line, as the page of the model shows it.
        processes: Processes that share the work; None for a single one.
    """

    labels: Path
    options: FinetuneOptions
    command: str
    callbacks: Callbacks
    processes: "ProcessGroup | None"

    def run(self, result: Result) -> FinetuneSummary:
        """Fine-tune, or resume it, or return the summary of what was finished before."""
        model = locate_model(self.options.model.model)
        inputs = {"labels": sha256_of_inputs([self.labels]), "model": model.sha256()}
        if self.options.labels.clusters is not None:
            inputs["clusters"] = sha256_of_inputs([self.options.labels.clusters])
        fingerprint = {**self.options.as_given(), **self.options.settings(), **inputs}
        with _claimed(result, fingerprint, self.callbacks, self.processes) as claim:
            if claim.recorded is not None:
                return _summarise(result.path, claim.recorded, was_done=True)
            return self._train(model, claim, fingerprint)

    def _train(self, model: ResolvedModel, claim: Claim, fingerprint: Fingerprint) -> FinetuneSummary:
        """Read the table, run the experiment, and publish its result; the first process writes it."""
        options, callbacks = self.options, self.callbacks
        tables = _read_tables(self.labels, options)
        # Only now, because torch takes seconds to import, and the table may already have been refused.
        from protembed.finetuning.design import make_design, run_experiment
        from protembed.finetuning.report import FinetuneReport
        from protembed.finetuning.runs import TrainingRuns
        from protembed.training.distributed import SINGLE_PROCESS

        processes, recorded = self.processes or SINGLE_PROCESS, None
        design, model_warnings = make_design(tables.folds, tables.final, model, options)
        check_inputs()
        plan = _plan(claim.output, tables, design.method, model_warnings)
        callbacks.on_plan(plan)
        runs = TrainingRuns(directory=claim.directory, fingerprint=fingerprint, processes=processes)
        experiment = run_experiment(design, options, runs, callbacks)
        if experiment is None:
            return FinetuneSummary(output=None, task=plan.task, comparison=None)
        callbacks.on_stage("metrics", None, 0)
        if processes.is_first:
            notes = [*plan.notes, *experiment.notes, *plan.warnings]
            report = FinetuneReport(design, experiment, notes, tables.skipped, self.command)
            of_model = {"model_name": model.name, "model_revision": model.revision}
            written = report.write(claim.create_directory())
            recorded = claim.publish({IDENTITY: fingerprint, **of_model, **written})
        return _summarise(claim.output, processes.broadcast_object(recorded))


def finetune_model(
    labels: PathLike, options: FinetuneOptions | None = None, callbacks: Callbacks | None = None
) -> FinetuneSummary:
    """Train an encoder, adapters, or a head on a frozen encoder to predict labels of proteins or of their residues.

    The model with the lowest validation loss is kept. It comes with `metrics.json`, its predictions for the test
    proteins, the similarity of each test protein to its nearest training protein, an HTML report, and a model card. The
    same call resumes a training that was interrupted.

    Under torchrun all processes make the same call, share the work, and return the same summary.

    Args:
        labels: The path of the table of labelled proteins, or `-` for stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the plan, the stages, the steps of trainings and the residues of embedded
            proteins, and may stop a training.

    Returns:
        The path of the model, and its metrics on the test proteins.

    Raises:
        ProtembedError: The table, the options, the model or the output does not allow it; see `protembed.errors`.
    """
    options, path = options or FinetuneOptions(), as_path("labels", labels)
    with _joined_processes(options) as processes:
        tables = [path, *filter(None, [options.labels.clusters])]
        if processes is not None and any(map(is_stream, tables)):
            raise ConfigError("labels", str(path), "several processes cannot read the same pipe: name a file")
        result, command = _describe_result(path, options), options.command_line([path])
        with unchanged_inputs(), seekable_inputs(tables) as (table, *clusters):
            options = replace(options, labels=replace(options.labels, clusters=clusters[0] if clusters else None))
            job = _Job(
                labels=table,
                options=options,
                command=command,
                callbacks=callbacks or Callbacks(),
                processes=processes,
            )
            return job.run(result)


def _describe_result(labels: Path, options: FinetuneOptions) -> Result:
    """Describe the model directory, and check that it may be written."""
    tables = [labels, *filter(None, [options.labels.clusters])]
    result = Result(
        options.finetune.output or default_path(labels, ".model"),
        [*tables, locate_model(options.model.model).directory],
        force=options.finetune.force,
        record=METRICS_FILE,
        run=RUN,
        contents=_CONTENTS,
        is_record=is_report,
    )
    check_utf8_path(result.path)
    return result
