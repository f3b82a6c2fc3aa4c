"""The plan and the summary of a pretraining run, and the facts on its model card."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protembed.config.common import OptimizerName
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.evaluation.intervals import MetricWithInterval
from protembed.evaluation.metrics import ClassMetrics
from protembed.model.metadata import ModelMetadata
from protembed.model.untrusted import model_sha256

if TYPE_CHECKING:
    from protembed.pretraining.corpus import Corpus
    from protembed.training.schedule import TrainingSchedule

# The key of `run.json` that holds the summary of a finished run, and what it does not hold.
FINISHED = "finished"
_NOT_RECORDED = ("output", "model", "was_done")


@dataclass(frozen=True, kw_only=True)
class PretrainPlan:
    """The plan of a run, complete before its first step.

    Attributes:
        num_parameters: Parameters of the encoder and its masked-LM head.
        num_proteins: Training proteins; `num_residues` counts theirs.
        num_clusters: Clusters of the training proteins; None without `--clusters`.
        cropped_fraction: Fraction of the training proteins that are longer than a crop.
        valid_sets: Number of proteins of each validation set, by name.
        window_residues: Longest window in validation, which the model records.
        references: Mean nats per masked residue, by validation set and `unigram`, `bigram` or `compared`.
        steps_per_pass: Steps in which every protein, or one member of every cluster, is seen once.
        first_step: Steps taken before; above 0 the run is resumed.
        learning_rate: Peak.
        disk_bytes: Estimated size of the finished run directory.
        seconds: Estimated duration of the run; None if steps were not timed.
        memory_bytes: Peak memory while steps were timed; None if they were not.
        num_shards: Processes that each hold a part of the weights; 1 if every process holds all.
        warnings: Warnings about the input, as sentences.
    """

    output: Path
    num_parameters: int
    num_proteins: int
    num_residues: int
    num_clusters: int | None
    cropped_fraction: float
    valid_sets: Mapping[str, int]
    window_residues: int
    references: Mapping[str, Mapping[str, float]]
    num_steps: int
    steps_per_pass: int
    first_step: int
    optimizer: OptimizerName
    precision: str
    learning_rate: float
    disk_bytes: int
    seconds: float | None
    memory_bytes: int | None
    num_shards: int = 1
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PretrainSummary:
    """The summary of a run, finished or stopped early.

    Attributes:
        output: Run directory.
        model: Directory of the best model; None if the run was stopped before its first validation.
        num_steps: Steps taken, `num_skipped` of them without an update, because the loss or gradient was not finite.
        num_residues: Residues seen.
        valid_loss: Loss of the best model on the first validation set, in mean nats per masked residue.
        references: Mean nats per masked residue of `unigram`, `bigram` and `compared` on the same set.
        num_valid_proteins: Proteins of the same set.
        gains: Nats per masked residue by which the best model is better than each reference on the same set, with 95 %
            intervals over proteins; empty until the run is finished.
        amino_acids: Metrics of the best model for each amino acid; empty until the run is finished.
    """

    output: Path
    model: Path | None
    num_steps: int
    num_residues: int
    num_skipped: int
    best_step: int | None
    valid_loss: float | None
    valid_perplexity: float | None
    references: Mapping[str, float]
    num_valid_proteins: int
    gains: Mapping[str, MetricWithInterval]
    amino_acids: Sequence[ClassMetrics]
    is_finished: bool
    was_done: bool = False


def finished_record(summary: PretrainSummary) -> dict[str, Any]:
    """Make the record of a finished run from its summary, with the hash of the model."""
    assert summary.model is not None, "a finished run has a model"
    values = {name: value for name, value in asdict(summary).items() if name not in _NOT_RECORDED}
    return {**values, "model_sha256": model_sha256(summary.model)}


def load_summary(run: Path, record: Mapping[str, Any]) -> PretrainSummary | None:
    """Load the summary of a finished run; None if its model is not there, or not the one recorded."""
    model = run / "model"
    if not model.is_dir() or model_sha256(model) != record["model_sha256"]:
        return None
    values = {name: value for name, value in record.items() if name != "model_sha256"}
    return PretrainSummary(
        **{
            **values,
            "output": run,
            "model": model,
            "gains": {name: MetricWithInterval(**gain) for name, gain in record["gains"].items()},
            "amino_acids": [ClassMetrics(**metrics) for metrics in record["amino_acids"]],
            "was_done": True,
        }
    )


def pretraining_facts(
    metadata: ModelMetadata, train: "Corpus", batches: BatchConfig, masking: MaskingConfig, schedule: "TrainingSchedule"
) -> dict[str, str]:
    """Collect the facts on the model card, by name, in their order."""
    metrics = metadata.metrics
    clusters = "" if train.clusters is None else f" of {len(train.clusters):,} clusters, one member of each drawn"
    compared = f", compared model {metrics['compared_perplexity']:.2f}" if "compared_perplexity" in metrics else ""
    gains = "; ".join(
        f"{gain['value']:.4f} ({gain['low']:.4f} to {gain['high']:.4f}) over the {name} model"
        for name, gain in metrics.get("gains", {}).items()
        if gain["low"] is not None
    )
    decay = f", falling over the last {schedule.decay_steps:,}" if schedule.schedule == "stable" else ""
    started_from, teacher = (metadata.configuration.get(name) for name in ("from_model", "teacher"))
    return {
        **({"started from": str(started_from)} if started_from else {}),
        **({"teacher": f"{teacher}, weight {metadata.configuration['teacher_weight']:g}"} if teacher else {}),
        "trained on": f"{len(train):,} proteins{clusters}, {train.num_residues:,} residues",
        "residues seen": f"{metrics['residues_seen']:,} in {metrics['step']:,} steps",
        "crops": f"{batches.crop_residues} residues, {masking.mask_rate:.0%} masked, "
        f"{batches.batch_tokens:,} tokens a step",
        "optimiser": f"{schedule.optimizer}, learning rate {schedule.learning_rate:g}, {schedule.warmup_steps:,} steps "
        f"of warm-up, {schedule.schedule}{decay}",
        "validation": f"perplexity {metrics['valid_perplexity']:.2f} over 20 amino acids, 15 % of the residues "
        f"masked, windows of {metadata.window_residues} residues",
        "baselines": f"unigram {metrics['unigram_perplexity']:.2f}, bigram {metrics['bigram_perplexity']:.2f}, "
        f"uniform 20.00{compared}",
        **({"gain": f"{gains}, nats per masked residue with 95 % intervals over proteins"} if gains else {}),
    }
