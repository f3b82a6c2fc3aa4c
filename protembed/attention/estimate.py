"""Estimates of the memory and disk space for attention maps, from the lengths of the proteins.

Each estimate is a sum over the arrays that are held at the same time. It is meant to lie above the actual use, and
below twice that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from protembed.attention.contact_predictors import FITTING_BYTES
from protembed.attention.page import block_size, map_resolution
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.model_sizes import EncoderShape
from protembed.data.batching import split_by_budget
from protembed.device import free_disk, peak_memory, total_memory
from protembed.errors import InsufficientResourcesError
from protembed.inference.engine import Engine
from protembed.text import pluralize

# A protein's maps are many times larger than its vectors: few are held at a time.
TOKENS_PER_CHUNK = 4096

_FLOAT_BYTES = 4
# What torch allocates for its first computation, and what is too small to estimate.
_BASE_BYTES = 80_000_000
# Predictions for a pair of residues while a layer is added: sums, corrected maps and the rollout's product; and after.
_BYTES_PER_PREDICTED_CELL, _BYTES_PER_WAITING_CELL = 24, 8
# Numbers that a layer of the encoder holds for each token, in multiples of its width.
_WIDTHS_PER_TOKEN = 16
# Ranks of all heads of a protein; while labels are moved, the same in the order of the pairs, and a copy of that.
_COPIES_IN_TEST = 3
# For each pair: a line in a table of contacts, and the memory to rank it.
_BYTES_PER_CONTACT_LINE, _BYTES_PER_RANKED_PAIR = 24, 48
# matplotlib's memory for each map in a figure of all heads, and for the figure itself.
_BYTES_PER_DRAWN_MAP, _BYTES_PER_FIGURE = 250_000, 20_000_000
# For each pixel of the page: its bytes in the pictures, and their copies while the page is built.
_BYTES_PER_PIXEL, _COPIES_OF_THE_PAGE = 1.0, 8

_SHORTEN_ADVICE = (
    "omit it, give a part of its sequence, or choose a model with fewer heads; `region`, `layers` and `heads` do not "
    "help, because a layer is always computed for the whole protein"
)
_SAVE_LESS_ADVICE = (
    "save fewer maps with `layers`, `heads`, `region`, `save_maps` or `store_dtype` float16, or choose another `output`"
)


@dataclass(frozen=True, kw_only=True)
class ProteinLength:
    """The identifier and the length of a protein."""

    id: str
    num_residues: int

    def __str__(self) -> str:
        return f"{self.id!r} of {pluralize(self.num_residues, 'residue')}"


@dataclass
class ResourceEstimate:
    """The memory and disk space for an inspection; complete once `add` has received every protein.

    Attributes:
        shape: Shape of the encoder.
        config: Options that define which results are saved.
        num_maps: Number of saved maps for each protein, layers times heads.
        predicts_contacts: Whether contacts are predicted.
        longest: Longest of all proteins.
        longest_displayed: Longest of the proteins whose maps are saved and displayed.
        num_residues: Number of residues of all proteins.
    """

    shape: EncoderShape
    config: AttentionConfig
    num_maps: int
    predicts_contacts: bool
    longest: ProteinLength = field(default_factory=lambda: ProteinLength(id="", num_residues=0))
    longest_displayed: ProteinLength = field(default_factory=lambda: ProteinLength(id="", num_residues=0))
    num_residues: int = 0
    _lengths: list[int] = field(default_factory=list)
    _displayed_lengths: list[int] = field(default_factory=list)
    _region_lengths: list[int] = field(default_factory=list)
    _pair_counts: list[int] = field(default_factory=list)
    _num_annotated_residues: int = 0

    @property
    def num_proteins(self) -> int:
        """Number of added proteins."""
        return len(self._lengths)

    def add(
        self, protein: ProteinLength, *, region: int | None = None, num_pairs: int = 0, is_annotated: bool = False
    ) -> None:
        """Add a protein.

        Args:
            protein: Identifier and length of the protein.
            region: Number of residues whose maps are saved; None if no maps are saved.
            num_pairs: Number of residue pairs whose features are kept.
            is_annotated: Whether the protein has sites.
        """
        self._lengths.append(protein.num_residues)
        self.num_residues += protein.num_residues
        self.longest = max(self.longest, protein, key=attrgetter("num_residues"))
        if region is not None:
            self.longest_displayed = max(self.longest_displayed, protein, key=attrgetter("num_residues"))
            self._displayed_lengths.append(protein.num_residues)
            self._region_lengths.append(region)
        if num_pairs:
            self._pair_counts.append(num_pairs)
        self._num_annotated_residues += protein.num_residues * is_annotated

    def layer_bytes(self, num_workers: int, micro_batch_tokens: int) -> int:
        """Estimate the bytes of one layer's maps and their softmax, for the largest micro-batches in flight."""
        tokens = np.sort(np.array(self._lengths, np.int64) + 2)[::-1]
        micro_batches = [tokens[part].tolist() for part in split_by_budget(tokens, micro_batch_tokens)]
        return sum(map(self._micro_batch_bytes, micro_batches[:num_workers]))

    def check_memory(self, engine: Engine, device: torch.device) -> None:
        """Check that the inspection fits into the memory of this machine and of its GPU.

        Raises:
            InsufficientResourcesError: The memory is too small.
        """
        cpu, num_workers = torch.device("cpu"), engine.pool.num_workers
        needed = peak_memory(cpu) + self.memory_bytes(num_workers, engine.micro_batch_tokens)
        if needed > total_memory(cpu):
            raise InsufficientResourcesError(
                "memory", needed, total_memory(cpu), str(self.longest), self._advice(engine)
            )
        if device.type == "cuda":
            needed = peak_memory(device) + self.layer_bytes(num_workers, engine.micro_batch_tokens)
            if needed > total_memory(device):
                raise InsufficientResourcesError(
                    "GPU memory", needed, total_memory(device), str(self.longest), _SHORTEN_ADVICE
                )

    def check_disk(self, output: Path) -> None:
        """Check that the results fit on the disk.

        Raises:
            InsufficientResourcesError: The disk has too little free space.
        """
        needed, available = self.disk_bytes, free_disk(output)
        if needed > available:
            raise InsufficientResourcesError("disk", needed, available, str(self.longest_displayed), _SAVE_LESS_ADVICE)

    def _advice(self, engine: Engine) -> str:
        """Choose the advice; saving less of a protein does not help, because whole layers are always computed."""
        available = total_memory(torch.device("cpu")) - peak_memory(torch.device("cpu"))
        if engine.pool.num_workers > 1 and self.memory_bytes(1, engine.micro_batch_tokens) < available:
            return "pass `threads` 1"
        if self.features_bytes > self.layer_bytes(1, engine.micro_batch_tokens):
            return "give fewer `structures` or `sites`"
        return _SHORTEN_ADVICE

    def memory_bytes(self, num_workers: int, micro_batch_tokens: int) -> int:
        """Estimate the peak memory, beyond what is held before the computation."""
        computing = self.layer_bytes(num_workers, micro_batch_tokens) + self._predicted_bytes()
        # While the last chunk is drawn, nothing else is computed.
        while_drawing = self._predicted_bytes() if sum(self._displayed_lengths) <= TOKENS_PER_CHUNK else computing
        peak = max(computing, self._testing_bytes(), self._fitting_bytes(), while_drawing + self._drawing_bytes())
        return _BASE_BYTES + self.features_bytes + peak

    @property
    def features_bytes(self) -> int:
        """Estimate the features of residue pairs and annotated residues, which are held until heads are evaluated."""
        return self._num_heads * _FLOAT_BYTES * (sum(self._pair_counts) + self._num_annotated_residues)

    @property
    def disk_bytes(self) -> int:
        """Estimate the size of the written results."""
        itemsize = np.dtype(self.config.store_dtype).itemsize
        cells = sum(region**2 for region in self._region_lengths)
        maps = cells * itemsize * (self.num_maps + self.predicts_contacts + self.config.rollout)
        num_pairs = sum(length**2 // 2 for length in self._displayed_lengths)
        contacts = num_pairs * _BYTES_PER_CONTACT_LINE * self.predicts_contacts
        # A single structure has no head fitted to it, and no model is written.
        model = self.shape.num_parameters * _FLOAT_BYTES * (len(self._pair_counts) > 1)
        return maps + contacts + model + int(1.5 * self._num_pixels * _BYTES_PER_PIXEL)

    @property
    def _num_heads(self) -> int:
        return self.shape.num_layers * self.shape.num_heads

    @property
    def _num_pixels(self) -> int:
        max_pixels = map_resolution(len(self._displayed_lengths), self.num_maps)
        sides = [-(-region // block_size(region, max_pixels)) for region in self._region_lengths]
        return self.num_maps * sum(side**2 for side in sides)

    def _micro_batch_bytes(self, tokens: Sequence[int]) -> int:
        """Estimate a worker's memory for a micro-batch: its maps, and the scores of its longest protein."""
        cells = max(tokens) ** 2
        scores = max(_FLOAT_BYTES * self.shape.num_heads, _BYTES_PER_PREDICTED_CELL) * cells
        maps = _FLOAT_BYTES * self.shape.num_heads * sum(length**2 for length in tokens)
        return int(maps + scores + sum(tokens) * self.shape.dim * _FLOAT_BYTES * _WIDTHS_PER_TOKEN)

    def _predicted_bytes(self) -> int:
        """Estimate the contacts and rollouts that wait to be written, of at most two of the engine's chunks."""
        longest = max(self._displayed_lengths, default=0)
        cells = min(sum(length**2 for length in self._displayed_lengths), 2 * (TOKENS_PER_CHUNK + longest) * longest)
        return _BYTES_PER_WAITING_CELL * cells * (self.predicts_contacts or self.config.rollout)

    def _testing_bytes(self) -> int:
        is_tested = bool(self._pair_counts or self._num_annotated_residues)
        draws = 5 * 8 * self.config.num_permutations * self._num_heads * is_tested
        return draws + _COPIES_IN_TEST * _FLOAT_BYTES * self._num_heads * max(self._pair_counts, default=0)

    def _fitting_bytes(self) -> int:
        return FITTING_BYTES * self._num_heads * sum(self._pair_counts) * (len(self._pair_counts) > 1)

    def _drawing_bytes(self) -> int:
        """Estimate the memory for drawing: the blocks of the maps, a figure, and the page."""
        if not self._displayed_lengths:
            return 0
        ranked = max(self._displayed_lengths) ** 2 // 2 * _BYTES_PER_RANKED_PAIR * self.predicts_contacts
        page = self._num_pixels * (_FLOAT_BYTES + _BYTES_PER_PIXEL * _COPIES_OF_THE_PAGE)
        return int(_BYTES_PER_FIGURE + _BYTES_PER_DRAWN_MAP * self.num_maps + ranked + page)
