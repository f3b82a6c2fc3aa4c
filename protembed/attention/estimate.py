"""Estimates of the memory and the disk space for attention maps, from the lengths of the proteins.

The rule: two layers' maps of the longest proteins, one for each thread, and what is held for each pair of residues and
for each pixel of the page, on a base. The estimates lie above what comes to pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from protembed.attention.maps import MapRequest
from protembed.attention.pictures import block_size, map_resolution
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.model_sizes import EncoderShape
from protembed.data.fasta import Record
from protembed.device import peak_memory, total_memory
from protembed.errors import InsufficientResourcesError
from protembed.inference.engine import Engine
from protembed.resources import free_disk
from protembed.text import pluralize

# A protein's maps are many times larger than its vectors: few are held at a time.
TOKENS_PER_CHUNK = 4096

_FLOAT_BYTES = 4
# What torch allocates for its first computation, matplotlib for its first figure, and what is too small to estimate.
_BASE_BYTES = 150_000_000
# matplotlib's memory for each map of a figure, and the map's part of the file.
_BYTES_PER_DRAWN_MAP, _BYTES_PER_FIGURE_OF_MAP = 250_000, 20_000
# For each pair of residues of a displayed protein: its predictions, their ranking, and a line in a table of contacts.
_BYTES_PER_RANKED_CELL, _BYTES_PER_CONTACT_LINE = 36, 24
# For each residue pair with a known distance and each head: most of it is liblinear's copy of the features. A single
# structure is only tested, by ranks.
_FITTING_BYTES, _RANKING_BYTES = 46, 12
# For each head and permutation: the sums of three null distributions, and intermediate results.
_BYTES_PER_PERMUTATION = 40
# For each pixel of the page: the maximum that waits to be drawn, the encoded picture, and copies while it is rendered.
_BYTES_PER_PIXEL = 12

_SHORTEN_ADVICE = (
    "omit it, give a part of its sequence, or choose a model with fewer heads; `region`, `layers` and `heads` do not "
    "help, because a layer is always computed for the whole protein"
)
_SAVE_LESS_ADVICE = (
    "save fewer maps with `layers`, `heads`, `region`, `save_maps` or `store_dtype` float16, or choose another `output`"
)


@dataclass(frozen=True, kw_only=True)
class ResourceEstimate:
    """The memory and disk space for an inspection.

    Attributes:
        num_maps: Number of saved maps for each protein, layers times heads.
        lengths: Lengths of all proteins, residues.
        displayed: Proteins whose maps are saved, without copies.
        requests: Results that are kept of a protein, by its sequence.
    """

    shape: EncoderShape
    config: AttentionConfig
    num_maps: int
    predicts_contacts: bool
    lengths: Sequence[int]
    longest: Record
    displayed: Sequence[Record]
    requests: Mapping[str, MapRequest]

    def layer_bytes(self, engine: Engine, num_workers: int) -> int:
        """Estimate two layers' maps, a layer and its softmax, of the largest micro-batch of each worker."""
        longest = sorted((length + 2 for length in self.lengths), reverse=True)[:num_workers]
        cells = sum(length * max(length, engine.micro_batch_tokens) for length in longest)
        return 2 * _FLOAT_BYTES * self.shape.num_heads * cells

    @property
    def features_bytes(self) -> int:
        """Estimate the features of residue pairs and annotated residues, which are held until heads are evaluated."""
        num_annotated = sum(len(sequence) for sequence, request in self.requests.items() if request.received)
        return self._num_heads * _FLOAT_BYTES * (sum(self._pair_counts) + num_annotated)

    def memory_bytes(self, engine: Engine, num_workers: int | None = None) -> int:
        """Estimate the peak memory, beyond what is held before the computation."""
        num_pairs, cells = self._pair_counts, [len(record.sequence) ** 2 for record in self.displayed]
        contacts = (_FLOAT_BYTES * sum(cells) + _BYTES_PER_RANKED_CELL * max(cells, default=0)) * self.predicts_contacts
        extracting = self.layer_bytes(engine, num_workers or engine.pool.num_workers)
        extracting += _BYTES_PER_DRAWN_MAP * self.num_maps * bool(self.displayed)
        fitted = _FITTING_BYTES * sum(num_pairs) if len(num_pairs) > 1 else _RANKING_BYTES * sum(num_pairs)
        permuted = _BYTES_PER_PERMUTATION * self.config.num_permutations * bool(self.features_bytes)
        evaluating = self._num_heads * (fitted + permuted)
        held = self.features_bytes + contacts + _BYTES_PER_PIXEL * self._num_pixels
        return _BASE_BYTES + held + max(extracting, evaluating)

    @property
    def disk_bytes(self) -> int:
        """Estimate the size of the written results."""
        itemsize = np.dtype(self.config.store_dtype).itemsize
        num_matrices = self.num_maps + self.predicts_contacts + self.config.rollout
        maps = itemsize * num_matrices * sum(side**2 for side in self._sides)
        num_pairs = sum(len(record.sequence) ** 2 // 2 for record in self.displayed)
        contacts = num_pairs * _BYTES_PER_CONTACT_LINE * self.predicts_contacts
        # A single structure has no head fitted to it, and no model is written.
        model = self.shape.num_parameters * _FLOAT_BYTES * (len(self._pair_counts) > 1)
        figures = _BYTES_PER_FIGURE_OF_MAP * self.num_maps * len(self.displayed)
        return maps + contacts + model + figures + 3 * self._num_pixels // 2

    def check_memory(self, engine: Engine, device: torch.device) -> None:
        """Check that the inspection fits into the memory of this machine and of its GPU.

        Raises:
            InsufficientResourcesError: The memory is too small.
        """
        cpu = torch.device("cpu")
        self._check(
            "memory", cpu, self.memory_bytes(engine), self._advice(engine, total_memory(cpu) - peak_memory(cpu))
        )
        if device.type == "cuda":
            self._check("GPU memory", device, self.layer_bytes(engine, engine.pool.num_workers), _SHORTEN_ADVICE)

    def _check(self, resource: str, device: torch.device, num_bytes: int, advice: str) -> None:
        needed, available = peak_memory(device) + num_bytes, total_memory(device)
        if needed > available:
            raise InsufficientResourcesError(resource, needed, available, _describe(self.longest), advice)

    def _advice(self, engine: Engine, available: int) -> str:
        """Choose the advice; saving less of a protein does not help, because whole layers are always computed."""
        if engine.pool.num_workers > 1 and self.memory_bytes(engine, 1) < available:
            return "pass `threads` 1"
        if self.features_bytes > self.layer_bytes(engine, 1):
            return "give fewer `structures` or `sites`"
        return _SHORTEN_ADVICE

    def check_disk(self, output: Path) -> None:
        """Check that the results fit on the disk.

        Raises:
            InsufficientResourcesError: The disk has too little free space.
        """
        needed, available = self.disk_bytes, free_disk(output)
        if needed > available:
            longest = max(self.displayed, key=lambda record: len(record.sequence), default=self.longest)
            raise InsufficientResourcesError("disk", needed, available, _describe(longest), _SAVE_LESS_ADVICE)

    @property
    def _num_heads(self) -> int:
        return self.shape.num_layers * self.shape.num_heads

    @property
    def _pair_counts(self) -> list[int]:
        return [len(request.pairs.first) for request in self.requests.values() if request.pairs is not None]

    @property
    def _sides(self) -> list[int]:
        """List the number of displayed residues of each displayed protein."""
        return [len(record.sequence[self.requests[record.sequence].region]) for record in self.displayed]

    @property
    def _num_pixels(self) -> int:
        max_pixels = map_resolution(len(self.displayed), self.num_maps)
        return self.num_maps * sum((-(-side // block_size(side, max_pixels))) ** 2 for side in self._sides)


def _describe(record: Record) -> str:
    return f"{record.id!r} of {pluralize(len(record.sequence), 'residue')}"
