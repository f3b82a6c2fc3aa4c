"""The resumable state of a run on disk: weights, optimisers and progress, as safetensors and JSON.

A checkpoint is a directory such as `checkpoints/step-000123`, renamed into place once its `MANIFEST.json` with the
SHA-256 of every file is written. An incomplete or damaged checkpoint is skipped in favour of the one before it.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from protembed.errors import DamagedRunError, DivergedError
from protembed.io.reading import read_json, sha256_of_file
from protembed.io.writing import atomic_directory, remove, write_json
from protembed.model.weights import with_current_names, write_tensors
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup

_WEIGHTS, _OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
_PROGRESS, _MANIFEST = "progress.json", "MANIFEST.json"
_FILES = (_WEIGHTS, _OPTIMIZER, _PROGRESS)
_DEFAULT_NUM_CHECKPOINTS = 2


def _damaged_file(directory: Path) -> str | None:
    """Return the name of the first file of a checkpoint that is missing or changed; None if all are intact."""
    name = _MANIFEST
    try:
        manifest = read_json(directory / _MANIFEST)
        for name in _FILES:
            if sha256_of_file(directory / name) != manifest[name]:
                return name
    except (OSError, ValueError, LookupError, TypeError):
        return name
    return None


def _optimizer_states(module: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, dict[str, Tensor]]:
    """Return what the optimisers know of each parameter, by its name; a state is empty before the first step."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        names[parameter]: optimizer.state[parameter]
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@dataclass
class TrainingProgress:
    """How far a run has come.

    Attributes:
        step: Steps taken, with those that were skipped because their loss or gradient was not finite.
        best_loss: Lowest validation loss so far, reached at `best_step`; None before the first validation.
        num_worse: Validations since `lowest_loss` was reached.
        lowest_loss: Lowest validation loss after a step. The loss of a fitted head before the first step does not
            count, because training may need some epochs to improve on it.
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
        """Return whether all steps were taken, or `patience` validations in a row brought no lower loss."""
        return self.step >= num_steps or (patience is not None and self.num_worse >= patience)

    def record_step(self, num_residues: int, *, is_finite: bool) -> None:
        """Record a step that was taken, or skipped because its loss or gradient was not finite."""
        self.step += 1
        self.num_residues += num_residues
        self.num_skipped += not is_finite
        self.num_skipped_in_a_row = 0 if is_finite else self.num_skipped_in_a_row + 1

    def record_validation(self, valid_loss: float) -> None:
        """Record a validation loss after `step`, which becomes `best_step` if the loss is the lowest so far.

        Raises:
            DivergedError: If the loss is not finite.
        """
        if not math.isfinite(valid_loss):
            raise DivergedError(self.step, 0)
        if self.step > 0:
            has_fallen = self.lowest_loss is None or valid_loss < self.lowest_loss
            self.num_worse = 0 if has_fallen else self.num_worse + 1
            self.lowest_loss = valid_loss if has_fallen else self.lowest_loss
        if self.best_loss is None or valid_loss < self.best_loss:
            self.best_loss, self.best_step = valid_loss, self.step


class Checkpoints:
    """The checkpoints of a run, and its progress.

    Args:
        directory: Run directory.
        num_checkpoints: Number of the newest checkpoints that remain on disk.
        save_seconds: Time after which a checkpoint is due, however few steps it had; None leaves it to the steps.
        processes: Processes of the run; the first one writes, and decides which checkpoint all resume from.

    Attributes:
        progress: How far the run has come; updated by the training loop.
    """

    def __init__(
        self,
        directory: Path,
        *,
        num_checkpoints: int = _DEFAULT_NUM_CHECKPOINTS,
        save_seconds: float | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._directory = directory / "checkpoints"
        self._num_checkpoints, self._save_seconds, self._processes = num_checkpoints, save_seconds, processes
        self._last_saved = time.monotonic()
        self.progress = TrainingProgress()

    def is_save_due(self) -> bool:
        """Return whether the time for the next checkpoint has come."""
        return self._save_seconds is not None and time.monotonic() - self._last_saved >= self._save_seconds

    def save(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Write a checkpoint of this step, and remove all but the newest ones.

        Raises:
            DivergedError: If a weight, or a number of an optimiser, is not finite; earlier checkpoints are intact.
            OutputError: If the checkpoint cannot be written; earlier ones are intact.
        """
        self._last_saved = time.monotonic()
        optimizer_tensors = {
            f"{name}/{kind}": value  # as in layers.0.bias/exp_avg
            for name, state in _optimizer_states(module, optimizers).items()
            for kind, value in state.items()
        }
        if not all(bool(value.isfinite().all()) for value in (*module.parameters(), *optimizer_tensors.values())):
            raise DivergedError(self.progress.step, 0)
        if not self._processes.is_first:
            return
        with atomic_directory(self._directory / f"step-{self.progress.step:06d}") as directory:
            write_tensors(module.state_dict(), directory / _WEIGHTS)
            write_tensors(optimizer_tensors, directory / _OPTIMIZER)
            write_json(directory / _PROGRESS, dataclasses.asdict(self.progress))
            write_json(directory / _MANIFEST, {name: sha256_of_file(directory / name) for name in _FILES})
        for old in self._newest_first()[self._num_checkpoints :]:
            remove(old)

    def restore(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> list[str]:
        """Load the newest intact checkpoint into a module and its optimisers, if there is any checkpoint.

        Damaged ones are skipped, and the warnings about them are returned.

        Raises:
            DamagedRunError: If there are checkpoints, but none is intact.
        """
        newest = self._newest_intact() if self._processes.is_first else None
        name, warnings = self._processes.broadcast_object(newest)
        if name is None:
            return []
        checkpoint = self._directory / name
        module.load_state_dict(with_current_names(load_file(checkpoint / _WEIGHTS)))
        states = _optimizer_states(module, optimizers)
        for name, value in with_current_names(load_file(checkpoint / _OPTIMIZER)).items():
            parameter, _, kind = name.rpartition("/")
            states[parameter][kind] = value.to(module.get_parameter(parameter).device)
        self.progress = TrainingProgress(**read_json(checkpoint / _PROGRESS))
        return list(warnings)

    def _newest_intact(self) -> tuple[str | None, list[str]]:
        """Return the name of the newest intact checkpoint; remove damaged ones after it, and warn about them."""
        damaged = dict[Path, str]()
        for directory in self._newest_first():
            file = _damaged_file(directory)
            if file is None:
                for path in damaged:
                    remove(path)
                return directory.name, [
                    f"{path / name} is damaged; skipping this checkpoint and resuming from {directory.name}"
                    for path, name in damaged.items()
                ]
            damaged[directory] = file
        if damaged:
            newest, name = next(iter(damaged.items()))
            raise DamagedRunError(newest / name, "this is damaged, and none of the checkpoints is intact")
        return None, []

    def _newest_first(self) -> list[Path]:
        checkpoints = self._directory.glob("step-*")
        return sorted(checkpoints, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)
