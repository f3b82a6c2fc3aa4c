"""Layers whose weights stay in the model's files until they are computed, for models larger than the memory.

One layer is in memory at a time; on a GPU two, because the next one is copied while one is computed. No layer changes:
it is computed from the same weights, in the same precision, as if all were in memory.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import torch
from torch import Tensor, nn

# Reads a weight of a layer, by the layer's number and the weight's name in it, into a tensor on the CPU.
ReadWeight = Callable[[int, str, Tensor], None]


class OffloadedLayers:
    """The layers of an encoder, of which one is in memory at a time, or several.

    The encoder's layers become the same few modules in turn, so that its code need not know that they are offloaded.
    All computations must have finished with a layer before the next one is loaded.

    Args:
        modules: The modules that take turns: one, or with another the next layer is read in a thread meanwhile. Their
            dtypes and device are those of the weights in memory.
        num_layers: The number of layers.
        read: Reads a weight of a layer.

    Attributes:
        read: Reads a weight of a layer.
        lock: Held while the layers are used by callers that do not know of one another.
    """

    def __init__(self, modules: Sequence[nn.Module], num_layers: int, read: ReadWeight) -> None:
        self._turns = [_Turn(module, read) for module in modules]
        self._num_layers, self.read = num_layers, read
        self.lock = Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="layers")

    @property
    def modules(self) -> nn.ModuleList:
        """The modules of all layers in their order; several are the same."""
        return nn.ModuleList(self._turn(number).module for number in range(self._num_layers))

    def load(self, number: int) -> None:
        """Read the weights of a layer, from 0, in place of those of another; then begin to read the next layer."""
        self._begin(number)
        self._turn(number).wait()
        if len(self._turns) > 1 and number + 1 < self._num_layers:
            self._begin(number + 1)

    def _turn(self, number: int) -> "_Turn":
        return self._turns[number % len(self._turns)]

    def _begin(self, number: int) -> None:
        turn = self._turn(number)
        if turn.number != number:
            turn.begin(number, self._reader)


class _Turn:
    """A module that holds one layer after another.

    To a GPU the weights are copied from a pinned buffer, on a stream of its own.

    Attributes:
        number: The layer that is, or will be, in the module; None before the first.
    """

    def __init__(self, module: nn.Module, read: ReadWeight) -> None:
        self.module, self._read = module, read
        self.number: int | None = None
        self._future: Future[None] | None = None
        self._weights: dict[str, Tensor] = dict(module.named_parameters())
        self._device = next(iter(self._weights.values())).device
        self._buffers = self._weights
        if self._device.type == "cuda":
            self._buffers = {
                name: torch.empty_like(weight, device="cpu", pin_memory=True) for name, weight in self._weights.items()
            }
            self._stream = torch.cuda.Stream(self._device)
            self._is_unused, self._is_copied = torch.cuda.Event(), torch.cuda.Event()

    def begin(self, number: int, reader: ThreadPoolExecutor) -> None:
        """Begin to read a layer in a thread; what was queued on the GPU before is still computed with the old one."""
        self.number = number
        if self._device.type == "cuda":
            self._is_unused.record(torch.cuda.current_stream(self._device))
        self._future = reader.submit(self._fill, number)

    def wait(self) -> None:
        """Wait until the layer is there; what is queued on the GPU from now on is computed with it."""
        assert self._future is not None, "`begin` was called"
        self._future.result()
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).wait_event(self._is_copied)

    def _fill(self, number: int) -> None:
        with torch.no_grad():
            if self._device.type == "cuda":
                self._is_copied.synchronize()  # the buffers may be written to
            for name, buffer in self._buffers.items():
                self._read(number, name, buffer)
            if self._device.type != "cuda":
                return
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(self._is_unused)
                for name, weight in self._weights.items():
                    weight.copy_(self._buffers[name], non_blocking=True)
                self._is_copied.record(self._stream)
