"""How much memory and disk attention maps will take, reckoned from the lengths of the proteins before any is computed.

Each figure is a sum over the arrays that are held at the same time. It is meant to lie above what comes to pass, and
below twice that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from protembed.io.text import pluralize

# A protein's maps are many times larger than its vectors: few are held at a time.
TOKENS_PER_CHUNK = 4096

_FLOAT = 4
# What torch sets up for its first computation, and what is too small to be reckoned.
_BASE_BYTES = 80_000_000
# What is predicted of a pair of residues, while a layer is added: sums, corrected maps and the rollout's product.
_BYTES_PER_PREDICTED_CELL, _BYTES_PER_KEPT_CELL = 24, 8
# Of a token: what a layer of the encoder holds of it, in numbers of its width.
_WIDTHS_PER_TOKEN = 16
# Ranks of all heads of a protein, and while marks are moved the same in the order of the pairs, and a copy of it.
_COPIES_WHILE_TESTED = 3
# A line of a table of contacts, for each pair; and what ranking them takes.
_BYTES_PER_CONTACT_LINE, _BYTES_PER_RANKED_PAIR = 24, 48
# matplotlib, for each map of a figure of all heads; for the figure itself.
_BYTES_PER_DRAWN_MAP, _BYTES_PER_FIGURE = 250_000, 20_000_000
# A pixel of the page in its pictures, and in all that the page is made of.
_BYTES_PER_PIXEL, _COPIES_OF_THE_PAGE = 1.0, 8

_LEAVE_OUT = (
    "leave it out, give a part of its sequence, or choose a model with fewer heads: a layer of the whole protein is "
    "computed, whatever --region, --layers and --heads keep of it"
)
_KEEP_LESS = (
    "keep less of them by --layers, --heads, --region, --save-maps or --store-dtype float16, or choose another --output"
)


@dataclass(frozen=True, kw_only=True)
class ProteinLength:
    """A protein by its name and its length."""

    id: str
    num_residues: int

    def __str__(self) -> str:
        return f"{self.id!r} of {pluralize(self.num_residues, 'residue')}"


@dataclass
class ResourceEstimate:
    """What an inspection will take; complete once `add` was told of every protein.

    Attributes:
        shape: of the encoder.
        config: what is kept of which proteins.
        num_maps: layers times heads whose maps are kept.
        predicts: whether contacts are, or will be, predicted.
        longest: of all proteins.
        largest_kept: the longest of those whose maps are kept.
        num_residues: of all proteins.
    """

    shape: EncoderShape
    config: AttentionConfig
    num_maps: int
    predicts: bool
    longest: ProteinLength = field(default_factory=lambda: ProteinLength(id="", num_residues=0))
    largest_kept: ProteinLength = field(default_factory=lambda: ProteinLength(id="", num_residues=0))
    num_residues: int = 0
    _lengths: list[int] = field(default_factory=list)
    _kept: list[int] = field(default_factory=list)
    _regions: list[int] = field(default_factory=list)
    _pairs: list[int] = field(default_factory=list)
    _received: int = 0

    @property
    def num_proteins(self) -> int:
        """Proteins so far."""
        return len(self._lengths)

    def add(
        self, protein: ProteinLength, *, region: int | None = None, num_pairs: int = 0, is_annotated: bool = False
    ) -> None:
        """Take a protein into account.

        Args:
            protein: how long it is.
            region: residues of it whose maps are kept; None: none.
            num_pairs: of which the features are kept.
            is_annotated: whether it has sites.
        """
        self._lengths.append(protein.num_residues)
        self.num_residues += protein.num_residues
        self.longest = max(self.longest, protein, key=lambda one: one.num_residues)
        if region is not None:
            self.largest_kept = max(self.largest_kept, protein, key=lambda one: one.num_residues)
            self._kept.append(protein.num_residues)
            self._regions.append(region)
        if num_pairs:
            self._pairs.append(num_pairs)
        self._received += protein.num_residues * is_annotated

    def layer_bytes(self, num_workers: int, micro_batch_tokens: int) -> int:
        """Estimate the bytes of one layer's maps and their softmax, for the largest micro-batches in flight."""
        tokens = np.sort(np.array(self._lengths, np.int64) + 2)[::-1]
        micro_batches = [tokens[part].tolist() for part in split_by_budget(tokens, micro_batch_tokens)]
        return sum(map(self._micro_batch_bytes, micro_batches[:num_workers]))

    def check_memory(self, engine: Engine, device: torch.device) -> None:
        """Refuse what cannot fit into the memory of this machine, or of its GPU.

        Raises:
            NotEnoughRoomError: it cannot.
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
                    "GPU memory", needed, total_memory(device), str(self.longest), _LEAVE_OUT
                )

    def check_disk(self, output: Path) -> None:
        """Refuse what the disk has no room for.

        Raises:
            NotEnoughRoomError: it has not.
        """
        needed, available = self.disk_bytes, free_disk(output)
        if needed > available:
            raise InsufficientResourcesError("disk", needed, available, str(self.largest_kept), _KEEP_LESS)

    def _advice(self, engine: Engine) -> str:
        """Say what would help; what is kept of a protein does not, for a layer of all of it is computed anyhow."""
        available = total_memory(torch.device("cpu")) - peak_memory(torch.device("cpu"))
        if engine.pool.num_workers > 1 and self.memory_bytes(1, engine.micro_batch_tokens) < available:
            return "pass --threads 1"
        if self.features_bytes > self.layer_bytes(1, engine.micro_batch_tokens):
            return "give fewer --structures or --sites"
        return _LEAVE_OUT

    def memory_bytes(self, num_workers: int, micro_batch_tokens: int) -> int:
        """Reckon the most that is held at once, beyond what is held before anything is computed."""
        reading = self.layer_bytes(num_workers, micro_batch_tokens) + self._predicted_bytes()
        # While the last chunk is drawn, nothing more is computed.
        beside = self._predicted_bytes() if sum(self._kept) <= TOKENS_PER_CHUNK else reading
        most = max(reading, self._testing_bytes(), self._fitting_bytes(), beside + self._showing_bytes())
        return _BASE_BYTES + self.features_bytes + most

    @property
    def features_bytes(self) -> int:
        """Reckon what is kept of pairs with a structure, and of annotated residues, until heads are weighed."""
        return self._num_heads * _FLOAT * (sum(self._pairs) + self._received)

    @property
    def disk_bytes(self) -> int:
        """Reckon what is written."""
        itemsize = np.dtype(self.config.store_dtype).itemsize
        cells = sum(region**2 for region in self._regions)
        maps = cells * itemsize * (self.num_maps + self.predicts + self.config.rollout)
        contacts = sum(length**2 // 2 for length in self._kept) * _BYTES_PER_CONTACT_LINE * self.predicts
        model = self.shape.num_parameters * _FLOAT * (len(self._pairs) > 1)  # one alone has no head fitted to it
        return maps + contacts + model + int(1.5 * self._num_pixels * _BYTES_PER_PIXEL)

    @property
    def _num_heads(self) -> int:
        return self.shape.num_layers * self.shape.num_heads

    @property
    def _num_pixels(self) -> int:
        most_pixels = map_resolution(len(self._kept), self.num_maps)
        sides = [-(-region // block_size(region, most_pixels)) for region in self._regions]
        return self.num_maps * sum(side**2 for side in sides)

    def _micro_batch_bytes(self, tokens: Sequence[int]) -> int:
        """Reckon what a worker holds of a micro-batch: its maps, and the scores of its longest protein."""
        longest = max(tokens) ** 2
        on_the_way = max(_FLOAT * self.shape.num_heads, _BYTES_PER_PREDICTED_CELL) * longest
        maps = _FLOAT * self.shape.num_heads * sum(length**2 for length in tokens)
        return int(maps + on_the_way + sum(tokens) * self.shape.dim * _FLOAT * _WIDTHS_PER_TOKEN)

    def _predicted_bytes(self) -> int:
        """Reckon contacts and rollouts that wait to be written: of two of the engine's chunks at most."""
        longest = max(self._kept, default=0)
        waiting = min(sum(length**2 for length in self._kept), 2 * (TOKENS_PER_CHUNK + longest) * longest)
        return _BYTES_PER_KEPT_CELL * waiting * (self.predicts or self.config.rollout)

    def _testing_bytes(self) -> int:
        draws = 5 * 8 * self.config.num_permutations * self._num_heads * bool(self._pairs or self._received)
        return draws + _COPIES_WHILE_TESTED * _FLOAT * self._num_heads * max(self._pairs, default=0)

    def _fitting_bytes(self) -> int:
        return FITTING_BYTES * self._num_heads * sum(self._pairs) * (len(self._pairs) > 1)

    def _showing_bytes(self) -> int:
        """Reckon what drawing takes: the blocks of the maps, a figure, the page."""
        if not self._kept:
            return 0
        ranked = max(self._kept) ** 2 // 2 * _BYTES_PER_RANKED_PAIR * self.predicts
        page = self._num_pixels * (_FLOAT + _BYTES_PER_PIXEL * _COPIES_OF_THE_PAGE)
        return int(_BYTES_PER_FIGURE + _BYTES_PER_DRAWN_MAP * self.num_maps + ranked + page)
