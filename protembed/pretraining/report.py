"""What a pretraining announces, what it comes to, and what its model card says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protembed.config.common import OptimizerName
from protembed.config.pretrain import BatchConfig, MaskingConfig
from protembed.evaluation.intervals import MetricWithInterval
from protembed.evaluation.metrics import ClassMetrics
from protembed.model.metadata import ModelMetadata
from protembed.pretraining.corpus import Corpus
from protembed.training.loop import TrainingSchedule


@dataclass(frozen=True, kw_only=True)
class PretrainPlan:
    """What a run is going to do, known before its first step.

    Attributes:
        output: the run directory.
        num_parameters: of the encoder and its masked-LM head.
        num_proteins: to train on.
        num_residues: to train on.
        num_clusters: that they belong to; None without `--clusters`.
        cropped_share: of the proteins, those longer than a crop.
        valid_sets: the names of the validation sets and their numbers of proteins.
        window_residues: the longest stretch that validation computes at once, and the model records.
        references: mean nats per hidden residue of the unigram model, the bigram model and the compared one, by set.
        num_steps: optimiser steps.
        steps_per_pass: steps in which every protein, or one member of every cluster, is seen once.
        first_step: where the run stands; above 0 it is resumed.
        optimizer: the rule of the updates.
        learning_rate: at its peak.
        disk_bytes: of the finished run directory, about.
        seconds: of the run, estimated; None where nothing was measured.
        memory_bytes: the most that was held while measuring; None where nothing was measured.
        warnings: what the user should know about the input.
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
    learning_rate: float
    disk_bytes: int
    seconds: float | None
    memory_bytes: int | None
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PretrainSummary:
    """What a run has come to.

    Attributes:
        model: the directory of the best model; None when the run was left before its first validation.
        num_steps: steps taken.
        num_residues: residues seen.
        num_skipped: steps skipped because their loss or gradient was not finite.
        best_step: after how many steps the best model was measured.
        valid_loss: of the best model on the first validation set, mean nats per hidden residue.
        valid_perplexity: its exponential.
        references: of the same set, mean nats per hidden residue: `unigram`, `bigram`, perhaps `compared`.
        num_valid_proteins: The proteins of that set.
        gains: By how many nats per masked residue the best model is better than each reference on that set, with 95 %
            intervals over proteins; empty while the run is not finished.
        amino_acids: the best model's figures for each amino acid; empty while the run is not finished.
        is_finished: whether the run has come to its end.
    """

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


def pretraining_facts(
    record: ModelMetadata, train: Corpus, batches: BatchConfig, masking: MaskingConfig, plan: TrainingSchedule
) -> dict[str, str]:
    """Collect what the model card says, by name, in the order to be shown.

    Args:
        record: of the model, with what was measured on it.
        train: the training proteins.
        batches: crops and tokens of a step.
        masking: the masking rule's shares.
        plan: the course of the run.
    """
    measured = record.metrics
    clusters = "" if train.clusters is None else f" of {len(train.clusters):,} clusters, one member of each drawn"
    compared = (
        f", the compared model {measured['compared_perplexity']:.2f}" if "compared_perplexity" in measured else ""
    )
    gains = "; ".join(
        f"{gain['value']:.4f} ({gain['low']:.4f} to {gain['high']:.4f}) over the {name} model"
        for name, gain in measured.get("gains", {}).items()
        if gain["low"] is not None
    )
    falling = f", falling over the last {plan.decay_steps:,}" if plan.schedule == "stable" else ""
    started_from = record.configuration.get("from_model")
    return {
        **({"started from": str(started_from)} if started_from else {}),
        "trained on": f"{len(train):,} proteins{clusters}, {train.num_residues:,} residues",
        "residues seen": f"{measured['residues_seen']:,} in {measured['step']:,} steps",
        "crops": f"{batches.crop_residues} residues, {masking.mask_rate:.0%} masked, "
        f"{batches.batch_tokens:,} tokens a step",
        "optimiser": f"{plan.optimizer}, learning rate {plan.learning_rate:g}, {plan.warmup_steps:,} steps of warm-up, "
        f"{plan.schedule}{falling}",
        "validation": f"perplexity {measured['valid_perplexity']:.2f} over 20 amino acids, 15 % of the residues "
        f"hidden, windows of {record.window_residues} residues",
        "to compare": f"unigram {measured['unigram_perplexity']:.2f}, bigram {measured['bigram_perplexity']:.2f}, "
        f"knowing nothing 20{compared}",
        **({"gain": f"{gains}, nats per masked residue with 95 % intervals over proteins"} if gains else {}),
    }
