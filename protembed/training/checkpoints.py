"""The resumable state of a run on disk: weights, optimiser, step and best result, as safetensors and JSON.

A checkpoint is a directory `checkpoints/step-000123` whose `MANIFEST.json`, with the sha256 of every file, is part of
it from the moment it has its name. A torn or damaged one is passed over for the one before it.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from protembed.errors import DamagedRunError, DivergedError
from protembed.io.reading import read_json, sha256_of_file
from protembed.io.writing import atomic_directory, remove, write_json
from protembed.model.weights import write_tensors
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup

_WEIGHTS, _OPTIMIZER, _PROGRESS, _MANIFEST = (
    "weights.safetensors",
    "optimizer.safetensors",
    "progress.json",
    "MANIFEST.json",
)
_FILES = (_WEIGHTS, _OPTIMIZER, _PROGRESS)
_NUM_KEPT = 2


@dataclass
class TrainingProgress:
    """How far a run has come.

    Attributes:
        step: steps taken.
        num_residues: residues seen.
        num_skipped: steps that were skipped because their loss or gradient was not finite.
        best_loss: the lowest validation loss so far.
        best_step: after how many steps it was measured.
        num_worse: validations since the lowest loss of the training itself.
        num_skipped_in_a_row: steps skipped since the last one that was not.
        lowest_loss: The lowest validation loss after a step; a fitted head that was validated before does not count,
            because the training may need some epochs to become better than that.
    """

    step: int = 0
    num_residues: int = 0
    num_skipped: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    num_worse: int = 0
    num_skipped_in_a_row: int = 0
    lowest_loss: float | None = None

    def is_finished(self, num_steps: int, patience: int | None) -> bool:
        """Tell whether all steps were taken, or too many validations in a row were no better."""
        return self.step >= num_steps or (patience is not None and self.num_worse >= patience)

    def record_step(self, num_residues: int, *, is_finite: bool) -> None:
        """Count a step."""
        self.step += 1
        self.num_residues += num_residues
        self.num_skipped += not is_finite
        self.num_skipped_in_a_row = 0 if is_finite else self.num_skipped_in_a_row + 1

    def record_validation(self, valid_loss: float) -> bool:
        """Tell whether a validation loss is the lowest so far, and remember it if it is.

        Raises:
            DivergedError: it is no finite number.
        """
        if not math.isfinite(valid_loss):
            raise DivergedError(self.step, 0)
        if self.step > 0:
            has_fallen = self.lowest_loss is None or valid_loss < self.lowest_loss
            self.num_worse = 0 if has_fallen else self.num_worse + 1
            self.lowest_loss = valid_loss if has_fallen else self.lowest_loss
        if self.best_loss is not None and valid_loss >= self.best_loss:
            return False
        self.best_loss, self.best_step = valid_loss, self.step
        return True


class Checkpoints:
    """A run's checkpoints and its progress.

    Args:
        directory: of the run.
        num_kept: the newest so many checkpoints are kept.
        save_seconds: a checkpoint is due after this time, however few steps it had; None leaves it to the steps.
        processes: of the run; the first one writes, and decides where the others take the run up.

    Attributes:
        progress: how far the run has come; the loop advances it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        num_kept: int = _NUM_KEPT,
        save_seconds: float | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._checkpoints = directory / "checkpoints"
        self._num_kept, self._save_seconds, self._processes = num_kept, save_seconds, processes
        self._last_saved = time.monotonic()
        self.progress = TrainingProgress()

    def is_save_due(self) -> bool:
        """Tell whether the last checkpoint is too long ago."""
        return self._save_seconds is not None and time.monotonic() - self._last_saved >= self._save_seconds

    def save(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Write a checkpoint of this step, and drop all but the newest ones.

        Raises:
            DivergedError: a weight, or a number of an optimiser, is not finite; the earlier ones are intact.
            OutputError: it cannot be written; the earlier ones are intact.
        """
        self._last_saved = time.monotonic()
        optimizer_tensors = _optimizer_tensors(module, optimizers)
        if not all(bool(value.isfinite().all()) for value in (*module.parameters(), *optimizer_tensors.values())):
            raise DivergedError(self.progress.step, 0)
        if not self._processes.is_first:
            return
        with atomic_directory(self._checkpoints / f"step-{self.progress.step:06d}") as directory:
            write_tensors(_on_cpu(module.state_dict()), directory / _WEIGHTS)
            write_tensors(_on_cpu(optimizer_tensors), directory / _OPTIMIZER)
            write_json(directory / _PROGRESS, dataclasses.asdict(self.progress))
            write_json(directory / _MANIFEST, {name: sha256_of_file(directory / name) for name in _FILES})
        for old in self._newest_first()[self._num_kept :]:
            remove(old)

    def restore(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> list[str]:
        """Take up the newest intact checkpoint, in place; a run without any stays at its beginning.

        Returns:
            What the user should know about torn ones that were passed over, in sentences.

        Raises:
            DamagedRunError: there are checkpoints, but none is intact.
        """
        found = self._newest_intact() if self._processes.is_first else None
        name, warnings = self._processes.broadcast_object(found)
        if name is None:
            return []
        intact = self._checkpoints / name
        module.load_state_dict(load_file(intact / _WEIGHTS))
        _restore_optimizers(module, optimizers, load_file(intact / _OPTIMIZER))
        self.progress = TrainingProgress(**read_json(intact / _PROGRESS))
        return list(warnings)

    def _newest_intact(self) -> tuple[str | None, list[str]]:
        """Name the newest intact checkpoint, remove the torn ones after it, and say what was wrong with them."""
        torn = dict[Path, str]()
        for directory in self._newest_first():
            damage = _damage(directory)
            if damage is None:
                for path in torn:
                    remove(path)
                passed_over = f"is passed over: the run goes on at {directory.name}"
                return directory.name, [
                    f"{path / name} is damaged, and its checkpoint {passed_over}" for path, name in torn.items()
                ]
            torn[directory] = damage
        if torn:
            newest, name = next(iter(torn.items()))
            raise DamagedRunError(newest / name, "this is damaged, and none of the checkpoints is intact")
        return None, []

    def _newest_first(self) -> list[Path]:
        found = self._checkpoints.glob("step-*")
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _damage(directory: Path) -> str | None:
    """Name the first file of a checkpoint that is not what it was; None where all are."""
    name = _MANIFEST
    try:
        manifest = read_json(directory / _MANIFEST)
        for name in _FILES:
            if sha256_of_file(directory / name) != manifest[name]:
                return name
    except (OSError, ValueError, LookupError, TypeError):
        return name
    return None


def _optimizer_tensors(module: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Name the optimisers' numbers by the parameter that they belong to: `layers.0.bias/exp_avg`."""
    return {
        f"{name}/{kind}": value
        for name, parameter in module.named_parameters()
        for optimizer in optimizers
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizers(module: nn.Module, optimizers: Sequence[Optimizer], tensors: dict[str, Tensor]) -> None:
    parameters = dict(module.named_parameters())
    owner = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, value in tensors.items():
        parameter_name, _, kind = name.rpartition("/")
        parameter = parameters[parameter_name]
        state: dict[str, Any] = owner[parameter].state[parameter]
        state[kind] = value.to(parameter.device)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
