"""The resumable state of a run on disk: weights, optimisers and progress, as safetensors and JSON.

A checkpoint is a directory such as `checkpoints/step-000123`, renamed into place once its `MANIFEST.json` with the
SHA-256 of every file is written. An incomplete or damaged checkpoint is skipped in favour of the one before it.

If the weights are sharded, each process writes the rows that it holds into files such as `weights.1-of-8.safetensors`.
Any number of processes can restore them, sharded or not.
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from protembed.errors import DamagedRunError, DivergedError
from protembed.io.reading import read_json, sha256_of_file
from protembed.io.writing import atomic_directory, output_errors, remove, write_json
from protembed.model.weights import with_current_names, write_tensors
from protembed.training.distributed import SINGLE_PROCESS, ProcessGroup
from protembed.training.sharding import local_rows, rows_of

_WEIGHTS, _OPTIMIZER = "weights", "optimizer"
_PROGRESS, _MANIFEST = "progress.json", "MANIFEST.json"
_DEFAULT_NUM_CHECKPOINTS = 2


# Files


def _file_name(kind: str, rank: int, size: int) -> str:
    """Return the name of the file of weights or optimiser states that one of several processes writes.

    >>> _file_name("weights", 0, 1), _file_name("weights", 0, 8)
    ('weights.safetensors', 'weights.1-of-8.safetensors')
    """
    return f"{kind}.safetensors" if size == 1 else f"{kind}.{rank + 1}-of-{size}.safetensors"


def _file_names(manifest: Mapping[str, str], kind: str) -> list[str]:
    """List the files of weights or optimiser states in the order of the processes that wrote them.

    Raises:
        LookupError: If one is missing.
    """
    size = sum(name.startswith(f"{kind}.") for name in manifest)
    names = [_file_name(kind, rank, size) for rank in range(size)]
    if not names or not manifest.keys() >= set(names):
        raise LookupError(kind)
    return names


def _damaged_file(directory: Path) -> str | None:
    """Return the name of the first file of a checkpoint that is missing or changed; None if all are intact."""
    name = _MANIFEST
    try:
        manifest = read_json(directory / _MANIFEST)
        for name in (*_file_names(manifest, _WEIGHTS), *_file_names(manifest, _OPTIMIZER), _PROGRESS):
            if sha256_of_file(directory / name) != manifest[name]:
                return name
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return name
    return None


class _StoredTensors:
    """The tensors of a checkpoint in the files of one kind; the rows in one file follow those in the file before."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._files, self._open = list[Any](), ExitStack()
        self._paths = [directory / name for name in _file_names(read_json(directory / _MANIFEST), kind)]

    def __enter__(self) -> "_StoredTensors":
        self._files = [self._open.enter_context(safe_open(path, framework="pt")) for path in self._paths]
        # A tensor without dimensions is in the first file alone, which therefore has all names.
        self._names = with_current_names({name: name for name in self._files[0].keys()})  # noqa: SIM118  # no dictionary
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    @property
    def names(self) -> list[str]:
        """The current names of the tensors."""
        return [*self._names]

    def has_rows(self, name: str) -> bool:
        """Whether a tensor has dimensions."""
        return bool(self._files[0].get_slice(self._names[name]).get_shape())

    def value(self, name: str) -> Tensor:
        """Read a tensor without dimensions."""
        value: Tensor = self._files[0].get_tensor(self._names[name])
        return value

    def copy_rows(self, name: str, first: int, rows: Tensor) -> None:
        """Copy the rows of a tensor from the number `first` on, in place, into as many rows in memory."""
        start = -first  # of the rows in a file, among those in memory
        for file in self._files:
            stored = file.get_slice(self._names[name])
            num_stored = stored.get_shape()[0]
            low, high = max(0, -start), min(num_stored, len(rows) - start)
            if low < high:
                rows[start + low : start + high] = stored[low:high]
            start += num_stored


# The state of a run


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
        processes: Processes of the run; the first one decides which checkpoint all resume from, and it alone writes
            unless the weights are sharded.

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
        self._holders = processes if processes.is_sharded else SINGLE_PROCESS  # of the rows of each tensor
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
        states = {
            f"{name}/{kind}": value  # as in layers.0.bias/exp_avg
            for name, state in _optimizer_states(module, optimizers).items()
            for kind, value in state.items()
        }
        tensors = {_WEIGHTS: self._held(module.state_dict()), _OPTIMIZER: self._held(states)}
        values = [value for group in tensors.values() for value in group.values()]
        if self._processes.any(not all(bool(value.isfinite().all()) for value in values)):
            raise DivergedError(self.progress.step, 0)
        if not (self._processes.is_first or self._processes.is_sharded):
            return
        with self._new_checkpoint() as directory:
            manifest = self._write(tensors, directory)
            if self._processes.is_first:
                write_json(directory / _PROGRESS, dataclasses.asdict(self.progress))
                manifest[_PROGRESS] = sha256_of_file(directory / _PROGRESS)
                write_json(directory / _MANIFEST, manifest)
        if self._processes.is_first:
            for old in self._newest_first()[self._num_checkpoints :]:
                remove(old)

    def _held(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of tensors that this process holds; the first one holds those without dimensions."""
        return {name: local_rows(value) for name, value in tensors.items() if value.ndim or self._holders.is_first}

    @contextmanager
    def _new_checkpoint(self) -> Iterator[Path]:
        """Yield the directory of a checkpoint, which the first process creates for all, and finally renames."""
        path = self._directory / f"step-{self.progress.step:06d}"
        if not self._processes.is_first:
            with output_errors(path):
                yield path.with_name(self._holders.broadcast_object(None))
            return
        with atomic_directory(path) as temporary:
            self._holders.broadcast_object(temporary.name)
            yield temporary

    def _write(self, tensors: Mapping[str, Mapping[str, Tensor]], directory: Path) -> dict[str, str]:
        """Write the rows that this process holds; return the SHA-256 of the files of all processes."""
        rank, size = self._holders.rank, self._holders.size
        names = [_file_name(kind, holder, size) for kind in tensors for holder in range(size)]
        digests = {name: torch.zeros(32, dtype=torch.uint8) for name in names}
        for kind, rows in tensors.items():
            name = _file_name(kind, rank, size)
            write_tensors(rows, directory / name)
            digests[name] += torch.tensor([*bytes.fromhex(sha256_of_file(directory / name))], dtype=torch.uint8)
        self._holders.all_reduce([*digests.values()])
        return {name: bytes(digest.tolist()).hex() for name, digest in digests.items()}

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
        with _StoredTensors(checkpoint, _WEIGHTS) as stored:
            for name, weight in module.state_dict().items():
                self._read(stored, name, weight)
        states = _optimizer_states(module, optimizers)
        with _StoredTensors(checkpoint, _OPTIMIZER) as stored:
            for name in stored.names:
                parameter, _, kind = name.rpartition("/")
                weight = module.get_parameter(parameter)
                value = torch.empty_like(weight) if stored.has_rows(name) else torch.empty((), device=weight.device)
                self._read(stored, name, value)
                states[parameter][kind] = value
        self.progress = TrainingProgress(**read_json(checkpoint / _PROGRESS))
        return list(warnings)

    def _read(self, stored: _StoredTensors, name: str, tensor: Tensor) -> None:
        """Read a tensor, or the rows of it that this process holds, in place."""
        if tensor.ndim:
            held = rows_of(len(tensor), self._holders.rank, self._holders.size)
            stored.copy_rows(name, held.start, local_rows(tensor))
        else:
            tensor.copy_(stored.value(name))

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
