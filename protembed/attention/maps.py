"""Attention maps of whole proteins: extraction layer by layer, and map files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.attention.contacts import ResiduePairs, gather, head_features
from protembed.attention.head_statistics import amino_acid_fractions, head_statistics, offset_sums
from protembed.attention.pictures import MAX_PIXELS, block_size, max_pool_blocks
from protembed.attention.strongest_pairs import StrongestPairs, stack_pairs, strongest_pairs
from protembed.config.common import Region
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.errors import ConfigError
from protembed.inference.computation import Computation, visit_attention
from protembed.io.arrays import MapFile
from protembed.model.encoder import Encoder
from protembed.model.heads import ContactHead


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """Optional results of one protein, beside the statistics of the heads.

    Attributes:
        maps: Whether the maps, and the contacts predicted from them, are held for display.
        region: Residues whose maps are held or written.
        pairs: Residue pairs whose features are kept for every head; None for no pairs.
        received: Whether to keep the mean attention that each residue receives.
    """

    maps: bool = False
    region: slice = field(default_factory=lambda: slice(None))
    pairs: ResiduePairs | None = None
    received: bool = False


@dataclass(frozen=True, kw_only=True)
class ProteinAttention:
    """The results of one protein's attention; those that were not requested are None.

    Attributes:
        sums: Statistics in the order of `ALL_STATISTICS`, summed over residues, (statistics, layer, head), float64.
        offset_sums: Attention at each of `OFFSETS`, summed over residues, (offsets, layer, head), float64.
        maps: Maps of the chosen layers and heads in the region, downsampled by `max_pool_blocks`, (layer, head, blocks,
            blocks), in the precision of the files.
        contacts: Probabilities from a fitted contact head, (residues, residues), float32.
        strongest: Strongest pairs of the same maps, (layer, head, separations, pairs).
        features: Symmetrised and corrected maps of all heads at the pairs, (layers · heads, pairs), float32.
        received: Mean attention that each residue receives from all residues, (layers · heads, residues), float32.
    """

    sums: NDArray[np.float64]
    offset_sums: NDArray[np.float64]
    num_residues: int
    maps: NDArray[np.floating] | None = None
    contacts: NDArray[np.float32] | None = None
    strongest: StrongestPairs | None = None
    features: NDArray[np.float32] | None = None
    received: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionExtractor:
    """Computes the attention of whole proteins layer by layer.

    Only requested results outlive a layer: the maps of the chosen heads, a running sum of contact logits, a running
    product of the rollout, and the features of known pairs.

    Attributes:
        encoder: Encoder on the device for the computation.
        layers: Chosen layers, from 0; without any, no maps are held or written.
        heads: Chosen heads, from 0.
        contact_head: Head that predicts contacts, on the CPU; None to predict none.
        files: Files to which the maps are written layer by layer; None to write none.
        max_pixels: Largest side of the held maps; longer regions are downsampled in blocks.
        config: Options of the rollout, and of the precision of the files and of the held maps alike.
    """

    encoder: Encoder
    layers: Sequence[int]
    heads: Sequence[int]
    contact_head: ContactHead | None = None
    files: "MapFiles | None" = None
    max_pixels: int = MAX_PIXELS
    config: AttentionConfig = field(default_factory=AttentionConfig)

    def extract(self, batch: Batch, requests: Sequence[MapRequest]) -> Computation[list[ProteinAttention]]:
        """Compute the statistics and the requested results of each protein of a batch, and write its maps."""
        tokens = batch.tokens.split(batch.offsets.diff().tolist())
        members = zip(tokens, batch.rows.tolist(), requests, strict=True)
        proteins = [_ProteinAccumulator(self, *member) for member in members]
        yield from visit_attention(
            self.encoder, batch, lambda layer, protein, weights: proteins[protein].add(layer, weights)
        )
        return [protein.result() for protein in proteins]


class _ProteinAccumulator:
    """Accumulates the attention of one protein, layer by layer."""

    def __init__(self, extractor: AttentionExtractor, tokens: Tensor, row: int, request: MapRequest) -> None:
        self._extractor, self._tokens, self._request = extractor, tokens, request
        self._sums, self._offset_sums = list[Tensor](), list[Tensor]()
        self._maps, self._strongest = list[NDArray[np.floating]](), list[StrongestPairs]()
        self._received = list[NDArray[np.float32]]()
        num_maps = extractor.encoder.shape.num_layers * extractor.encoder.shape.num_heads
        num_pairs = 0 if request.pairs is None else len(request.pairs.first)
        self._features = np.empty((num_maps, num_pairs), np.float32)
        side = len(range(len(tokens) - 2)[request.region])
        shape = (len(extractor.layers), len(extractor.heads), side, side)
        self._file = None if extractor.files is None else extractor.files.create(row, shape)
        self._logits: Tensor | None = None
        self._rollout: Tensor | None = None

    def add(self, layer: int, weights: Tensor) -> None:
        """Add the attention weights of a layer, (head, length, length)."""
        extractor, request = self._extractor, self._request
        self._sums.append(torch.cat([head_statistics(weights), amino_acid_fractions(weights, self._tokens)]))
        self._offset_sums.append(offset_sums(weights))
        maps = weights[:, 1:-1, 1:-1]  # (head, residues, residues)
        if layer in extractor.layers:
            self._keep([maps[head, request.region, request.region].numpy() for head in extractor.heads])  # views
        if request.maps and extractor.contact_head is not None:
            logits = extractor.contact_head.layer_logits(layer, maps)
            self._logits = logits if self._logits is None else self._logits + logits
        if self._file is not None and extractor.config.rollout:
            self._rollout = attention_rollout_step(self._rollout, weights)
        if request.pairs is not None:
            for number, head in enumerate(maps.numpy(), start=layer * len(maps)):
                self._features[number] = gather(request.pairs, head_features(head[None])[0])
        if request.received:
            self._received.append(maps.mean(1).numpy())

    def _keep(self, chosen: Sequence[NDArray[np.float32]]) -> None:
        """Hold and write the requested maps of a layer, (residues, residues) for each chosen head."""
        if self._request.maps:
            block = block_size(chosen[0].shape[-1], self._extractor.max_pixels)
            pooled = np.stack([max_pool_blocks(head, block) for head in chosen])
            self._maps.append(pooled.astype(self._extractor.config.store_dtype, copy=False))
            self._strongest.append(stack_pairs([strongest_pairs(head) for head in chosen]))
        if self._file is not None:
            self._file.append(chosen)

    def result(self) -> ProteinAttention:
        """Combine the results of all layers, and complete the file."""
        head = self._extractor.contact_head
        contacts = None if self._logits is None or head is None else (self._logits + head.bias).sigmoid().numpy()
        if self._file is not None:
            self._complete(self._file, contacts)
        return ProteinAttention(
            sums=torch.stack(self._sums, dim=1).numpy(),
            offset_sums=torch.stack(self._offset_sums, dim=1).numpy(),
            num_residues=len(self._tokens) - 2,
            maps=np.stack(self._maps) if self._maps else None,
            contacts=contacts,
            strongest=stack_pairs(self._strongest) if self._strongest else None,
            features=None if self._request.pairs is None else self._features,
            received=np.concatenate(self._received) if self._received else None,
        )

    def _complete(self, file: MapFile, contacts: NDArray[np.float32] | None) -> None:
        """Add contacts, rollout and the numbers of layers and heads to the file, and close it."""
        extractor, part = self._extractor, self._request.region
        rollout = None if self._rollout is None else self._rollout[1:-1, 1:-1].numpy()
        predicted = {"contacts": contacts, "rollout": rollout}
        dtype = extractor.config.store_dtype
        stored = {name: array[part, part].astype(dtype) for name, array in predicted.items() if array is not None}
        file.close({**stored, "layers": np.array(extractor.layers) + 1, "heads": np.array(extractor.heads) + 1})


def attention_rollout_step(before: Tensor | None, weights: Tensor) -> Tensor:
    """Extend the attention rollout by one layer: half of the flow stays in place, half follows the mean of the heads.

    Args:
        before: Rollout of the layers below, (length, length); None for the first layer.
        weights: Attention weights with special tokens, (head, length, length).

    Returns:
        The rollout, (length, length); rows sum to one.

    Source: Abnar and Zuidema 2020, "Quantifying attention flow in transformers", section 3.
    """
    mixed = (weights.mean(0) + torch.eye(weights.shape[-1])) / 2
    return mixed if before is None else mixed @ before


def parse_region(text: str | None, num_residues: int) -> slice:
    """Parse a region of residues such as `100-400`, numbered from 1, and clip it to the protein; None is all of it.

    Raises:
        ConfigError: The text is not a region, or the region begins behind the protein's end.

    >>> parse_region("100-400", 250)
    slice(99, 250, None)
    """
    if text is None:
        return slice(0, num_residues)
    part = Region.parse(text).within(num_residues)
    if part is None:
        raise ConfigError("region", text, f"a protein whose maps are saved has {num_residues} residues")
    return part


class MapFiles:
    """The files of attention maps, one for each displayed sequence; a context manager that leaves none open."""

    def __init__(self, directory: Path, config: AttentionConfig) -> None:
        self._directory, self._config = directory, config
        self._paths: dict[int, Path] = {}  # by the row of the first protein with a sequence
        self._names: dict[str, str] = {}  # by sequence
        self._open: dict[int, MapFile] = {}
        self._lock, self._is_closed = Lock(), False

    def __enter__(self) -> "MapFiles":
        return self

    def __exit__(self, *exception: object) -> None:
        """Abandon the files that an error left open, and prevent running workers from creating others."""
        with self._lock:
            self._is_closed = True
            for file in self._open.values():
                file.abandon()

    def add(self, record: Record) -> None:
        """Give a protein a file, named by its row; a copy of an earlier protein shares the earlier file."""
        if record.sequence not in self._names:
            self._names[record.sequence] = f"protein-{record.row + 1:06d}.{self._config.format}"
            self._paths[record.row] = self._directory / self._names[record.sequence]

    def name(self, record: Record) -> str:
        """Return the name of a protein's file."""
        return self._names[record.sequence]

    def create(self, row: int, shape: tuple[int, int, int, int]) -> MapFile | None:
        """Create the file of a row for maps, (layers, heads, residues, residues); None if the row has no file."""
        if row not in self._paths:
            return None
        with self._lock:
            if self._is_closed:
                raise InterruptedError
            if row in self._open:  # the micro-batch did not fit into memory, and its halves start over
                self._open[row].abandon()
            self._open[row] = MapFile(self._paths[row], shape, self._config.store_dtype)
            return self._open[row]
