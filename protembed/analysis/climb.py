"""The climb of a ladder: every rung, in every fold and repeat, and the model that is kept in the end."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protembed.analysis.model_rungs import RANDOM, RUNG_OF_METHOD, ModelRung, ModelRungs
from protembed.analysis.rungs import counting_rungs, trivial_rung
from protembed.analysis.scores import Output
from protembed.data.labels import LabelTable
from protembed.data.partition import Division
from protembed.data.targets import Targets
from protembed.model.heads import TaskHead
from protembed.training.finetuning import Divergence


@dataclass(frozen=True, kw_only=True)
class Climbed:
    """What a climb has come to.

    Attributes:
        kept: the model that is kept.
        outputs: of each rung, of each of its trainings, what it predicted of all measured proteins, fold by fold; the
            model's rung is the last.
        kept_outputs: those of the model's rung by the training that is kept, or that stands for it in folds.
        log: of the steps of the training that is kept; empty where there was none.
        notes: what should be known about it, in sentences.
    """

    kept: ModelRung
    outputs: Mapping[str, Sequence[Sequence[Output]]]
    kept_outputs: Sequence[Output]
    log: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


class Climb:
    """Makes the rungs of all folds and repeats.

    Args:
        rungs: makes those that need a model.
        division: of the table.
        targets: the labels of each fold.
        final: those of the parts that the kept model is made of.
    """

    def __init__(self, rungs: ModelRungs, division: Division, targets: Sequence[Targets], final: Targets) -> None:
        self._rungs, self._division, self._targets, self._final = rungs, division, targets, final
        self._outputs: dict[str, list[list[Output]]] = defaultdict(list)
        self._trainings: dict[str, list[Divergence | None]] = defaultdict(list)
        self._kept: ModelRung | None = None
        self._kept_repeat, self._kept_place = 0, ""

    def climb(self) -> Climbed | None:
        """Make every rung; None if a training was left before its end."""
        for fold, (table, targets) in enumerate(zip(self._division.folds, self._targets, strict=True)):
            self._rungs.watcher.on_stage("counting", None, 0)
            for rung in (trivial_rung(table, self._final), *counting_rungs(table, targets, self._rungs.config.seed)):
                self._add(rung.name, 0, rung.outputs)
            if not (self._climb_models(fold, table, targets) and self._climb_random(fold, table, targets)):
                return None
        if self._division.is_in_folds and not self._make_final():
            return None
        assert self._kept is not None
        model = RUNG_OF_METHOD[self._rungs.method]
        last = [RANDOM, *dict.fromkeys([RUNG_OF_METHOD["frozen"], model])]
        order = [*(name for name in self._outputs if name not in last), *last]
        return Climbed(
            kept=self._kept,
            outputs={name: self._outputs[name] for name in order if name in self._outputs},
            kept_outputs=self._outputs[model][self._kept_repeat],
            log=self._rungs.read_log(self._kept_place),
            notes=self._notes(),
        )

    def _notes(self) -> list[str]:
        notes = [_divergence_note(name, found) for name, found in self._trainings.items() if any(found)]
        if self._kept is not None and not self._kept.has_improved:
            head = self._rungs.config.head
            notes.append(
                f"fine-tuning did not improve the validation loss; keeping the frozen encoder with its {head} head"
            )
        if self._rungs.config.repeats > 1:
            notes.append("the figures are means over all trainings; the one with the lowest validation loss is kept")
        if self._division.is_in_folds:
            notes.append(
                "the figures are of models that did not see the proteins; the one that is kept saw all of them"
            )
        return notes

    def _climb_random(self, fold: int, table: LabelTable, targets: Targets) -> bool:
        """Make the rung of the same shape from random weights, unless it is not wanted.

        It comes after the model, which is what was asked for. Where the encoder is too large to be trained, or is not
        to be, its random weights are not trained either.
        """
        rungs = self._rungs
        if rungs.config.quick:
            return True
        if rungs.method != "full":
            self._add(RANDOM, 0, rungs.frozen(table, targets, random=True).rung.outputs)
            return True
        for repeat in range(rungs.config.repeats):
            trained = self._train(f"random-{fold}-{repeat}", table, targets, rungs.config.seed + repeat, None)
            if trained is None:
                return False
            self._add(RANDOM, repeat, trained.rung.outputs)
        return True

    def _climb_models(self, fold: int, table: LabelTable, targets: Targets) -> bool:
        """Make the rungs of the pretrained encoder, and keep the best of its trainings on the validation part."""
        rungs = self._rungs
        frozen = rungs.frozen(table, targets)
        self._add(frozen.rung.name, 0, frozen.rung.outputs)
        if rungs.method == "frozen":
            self._kept = frozen
            return True
        for repeat in range(rungs.config.repeats):
            place, seed = f"model-{fold}-{repeat}", rungs.config.seed + repeat
            trained = self._train(place, table, targets, seed, frozen.checkpoint.task_head)
            if trained is None:
                return False
            self._add(trained.rung.name, repeat, trained.rung.outputs)
            if repeat == 0 or self._kept is None or trained.valid_loss < self._kept.valid_loss:
                self._kept, self._kept_repeat, self._kept_place = trained, repeat, place
        return True

    def _make_final(self) -> bool:
        """Make the model that is kept where every fold had one of its own."""
        rungs, table = self._rungs, self._division.final
        self._kept, self._kept_repeat, self._kept_place = rungs.frozen(table, self._final), 0, "final"
        if rungs.method != "frozen":
            head = self._kept.checkpoint.task_head
            self._kept = self._train("final", table, self._final, rungs.config.seed, head)
        return self._kept is not None

    def _train(
        self, place: str, table: LabelTable, targets: Targets, seed: int, head: TaskHead | None
    ) -> ModelRung | None:
        """Train a model, and remember whether the training diverged; arguments as for `ModelRungs.trained`."""
        trained = self._rungs.trained(place, table, targets, seed, head)
        if trained is not None:
            self._trainings[trained.rung.name].append(trained.divergence)
        return trained

    def _add(self, name: str, training: int, outputs: Sequence[Output]) -> None:
        """Append what a rung predicted of a fold to what it predicted of those before."""
        trainings = self._outputs[name]
        trainings += [[] for _ in range(training + 1 - len(trainings))]
        trainings[training] += outputs


def _divergence_note(name: str, trainings: Sequence[Divergence | None]) -> str:
    """Say which of the trainings of a model diverged, and describe the worst."""
    diverged = [divergence for divergence in trainings if divergence is not None]
    worst = max(diverged, key=lambda divergence: divergence.valid_loss)
    if len(trainings) == 1:
        return f"the training of {name!r} diverged: {worst}"
    return f"{len(diverged)} of {len(trainings)} trainings of {name!r} diverged; in the worst, {worst}"
