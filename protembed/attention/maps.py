"""Attention maps of whole proteins, their statistics for each head, and the files that hold them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.attention.contacts import ResiduePairs, at, head_features
from protembed.attention.page import MOST_PIXELS, block_size, max_pool_blocks
from protembed.config.common import Region
from protembed.config.inspect_attention import AttentionConfig
from protembed.data.alphabet import AMINO_ACID_IDS, AMINO_ACIDS
from protembed.data.batching import Batch
from protembed.data.fasta import Record
from protembed.errors import ConfigError
from protembed.io.arrays import MapFile
from protembed.model.esm2 import Encoder
from protembed.model.heads import ContactHead

STATISTICS = ("entropy", "mean_distance", "on_self", "on_neighbours", "on_cls", "on_eos")
# And on each amino acid.
ALL_STATISTICS = (*STATISTICS, *(f"on_{letter}" for letter in AMINO_ACIDS))

# Residues whose attention is described at once. What is computed of a whole map on the way is larger than the map, and
# too small for the C library to give it back to the system.
_ROWS_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """What is wanted of one protein beside the statistics of the heads.

    Attributes:
        maps: whether its maps are held, to be looked at, and what is predicted from them.
        most_pixels: on a side of the maps that are held, which are in blocks where residues are more.
        file: makes the file that its maps are written to, layer by layer; None: they are not written.
        region: of the residues whose maps are held or written.
        pairs: of which every head's features are kept; None: none.
        received: whether it is kept how much attention each residue receives.
    """

    maps: bool = False
    most_pixels: int = MOST_PIXELS
    file: Callable[[], MapFile] | None = None
    region: slice = field(default_factory=lambda: slice(None))
    pairs: ResiduePairs | None = None
    received: bool = False


@dataclass(frozen=True, kw_only=True)
class ProteinAttention:
    """What is kept of one protein's attention.

    Attributes:
        sums: (statistics, layer, head), float64, in the order of `ALL_STATISTICS`, summed over residues.
        num_residues: residues.
        maps: (layer, head, blocks, blocks), float32, of the chosen layers and heads: the highest of each block of
            residues of the region, single residues where it is short; see `blocks`.
        contacts: (residues, residues), float32 probabilities of a fitted contact head.
        rollout: (residues, residues), float32.
        features: (layers · heads, pairs), float32, symmetrised and corrected, of all heads.
        received: (layers · heads, residues), float32, the mean attention that each residue receives from all residues.
        file: with the maps of the chosen heads, still open.
    """

    sums: NDArray[np.float64]
    num_residues: int
    maps: NDArray[np.float32] | None = None
    contacts: NDArray[np.float32] | None = None
    rollout: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    received: NDArray[np.float32] | None = None
    file: MapFile | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionExtractor:
    """Computes the attention of whole proteins layer by layer; its `read` is what the engine computes.

    Of a layer's maps only what is wanted outlives it: those of the chosen heads, a running sum of contacts, a running
    product of the rollout, features of known pairs.

    Attributes:
        encoder: on the device where it is to compute.
        layers: chosen layers, from 0.
        heads: chosen heads, from 0.
        contact_head: to predict contacts with, on the CPU; None to leave them out.
        rolls_out: whether the rollout of the proteins whose maps are kept is computed.
    """

    encoder: Encoder
    layers: Sequence[int]
    heads: Sequence[int]
    contact_head: ContactHead | None = None
    computes_rollout: bool = False

    def read(self, batch: Batch, wanted: Sequence[MapRequest]) -> list[ProteinAttention]:
        """Compute the statistics of each protein of a batch, and what else is wanted of each."""
        layout = self.encoder.layout(batch.offsets)
        tokens = batch.tokens.split(layout.lengths)
        readings = [_ProteinAccumulator(self, one, own) for one, own in zip(tokens, wanted, strict=True)]
        for layer, maps in enumerate(self.encoder.attention_maps(batch.tokens.to(layout.offsets.device), layout)):
            for reading in readings:
                # Whoever held these while the next layer is computed would double the memory.
                reading.take(layer, maps.pop(0).cpu())  # (head, length, length)
        return [reading.result() for reading in readings]


class _ProteinAccumulator:
    """One protein's attention, layer by layer."""

    def __init__(self, reader: AttentionExtractor, tokens: Tensor, wanted: MapRequest) -> None:
        self._reader, self._tokens, self._wanted = reader, tokens, wanted
        self._sums, self._maps = list[Tensor](), list[NDArray[np.float32]]()
        self._received = list[NDArray[np.float32]]()
        num_maps = reader.encoder.shape.num_layers * reader.encoder.shape.num_heads
        num_pairs = 0 if wanted.pairs is None else len(wanted.pairs.first)
        self._features = np.empty((num_maps, num_pairs), np.float32)
        self._file = None if wanted.file is None else wanted.file()
        self._logits: Tensor | None = None
        self._rollout: Tensor | None = None

    def take(self, layer: int, weights: Tensor) -> None:
        """Take in a layer's weights, (head, length, length)."""
        reader, wanted = self._reader, self._wanted
        self._sums.append(torch.cat([head_statistics(weights), amino_acid_fractions(weights, self._tokens)]))
        among = weights[:, 1:-1, 1:-1]  # (head, residues, residues)
        chosen = [among[head, wanted.region, wanted.region].numpy() for head in reader.heads]  # views
        if wanted.maps and layer in reader.layers:
            block = block_size(chosen[0].shape[-1], wanted.most_pixels)
            self._maps.append(np.stack([max_pool_blocks(head, block) for head in chosen]))
        if self._file is not None and layer in reader.layers:
            self._file.append(chosen)
        is_looked_at = wanted.maps or self._file is not None
        if is_looked_at and reader.contact_head is not None:
            logits = reader.contact_head.layer_logits(layer, among)
            self._logits = logits if self._logits is None else self._logits + logits
        if is_looked_at and reader.computes_rollout:
            self._rollout = attention_rollout_step(self._rollout, weights)
        if wanted.pairs is not None:
            for number, head in enumerate(among.numpy(), start=layer * len(among)):
                self._features[number] = at(wanted.pairs, head_features(head[None])[0])
        if wanted.received:
            self._received.append(among.mean(1).numpy())

    def result(self) -> ProteinAttention:
        """Put together what was kept."""
        head = self._reader.contact_head
        return ProteinAttention(
            sums=torch.stack(self._sums, dim=1).numpy(),
            num_residues=len(self._tokens) - 2,
            maps=np.stack(self._maps) if self._maps else None,
            contacts=None if self._logits is None or head is None else (self._logits + head.bias).sigmoid().numpy(),
            rollout=None if self._rollout is None else self._rollout[1:-1, 1:-1].numpy(),
            features=None if self._wanted.pairs is None else self._features,
            received=np.concatenate(self._received) if self._received else None,
            file=self._file,
        )


@dataclass
class HeadStatistics:
    """Means over all residues of all proteins, per head; `add` one protein after the other.

    Attributes:
        sums: (statistics, layer, head), float64.
        num_residues: residues so far.
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    num_residues: int = 0

    def add(self, protein: ProteinAttention) -> None:
        """Take one protein into account."""
        self.sums = self.sums + protein.sums
        self.num_residues += protein.num_residues

    def means(self) -> NDArray[np.float64]:
        """Return (statistics, layer, head); without any protein there is no layer and no head."""
        return np.asarray(self.sums / self.num_residues) if self.num_residues else np.zeros((len(ALL_STATISTICS), 0, 0))


def head_statistics(weights: Tensor) -> Tensor:
    """Sum what each head does over the residues of one protein.

    The entropy (nats) and the shares on the residue itself, on its two neighbours, on `<cls>` and on `<eos>` are over
    all tokens that a residue attends to; the mean distance (residues) is over the residues among them.

    Args:
        weights: (head, length, length) on the CPU, special tokens included; rows sum to one.

    Returns:
        (statistics, head), float64, in the order of `STATISTICS`.
    """
    return torch.stack([_one_head_statistics(head) for head in weights], dim=1)


def _one_head_statistics(weights: Tensor) -> Tensor:
    parts = weights[1:-1].split(_ROWS_AT_ONCE)  # what residues attend to
    values = [_row_statistics(rows, number * _ROWS_AT_ONCE) for number, rows in enumerate(parts)]
    return torch.cat(values, dim=1).sum(-1, dtype=torch.float64)


def _row_statistics(rows: Tensor, start: int) -> Tensor:
    """Describe what some residues, from `start` on, attend to: from (some, length) to (statistics, some)."""
    among_residues = rows[:, 1:-1]  # (some, residues)
    places = torch.arange(among_residues.shape[-1])
    distance = (places[start : start + len(rows), None] - places).abs()
    on_residues = among_residues.sum(-1).clamp(min=torch.finfo(rows.dtype).tiny)
    per_residue = (
        torch.special.entr(rows).sum(-1),
        (among_residues * distance).sum(-1) / on_residues,
        among_residues.diagonal(start),
        (among_residues * (distance == 1)).sum(-1),
        rows[:, 0],
        rows[:, -1],
    )
    return torch.stack(per_residue)


def amino_acid_fractions(weights: Tensor, tokens: Tensor) -> Tensor:
    """Sum how much of each head's attention, from residues, lies on each standard amino acid of one protein.

    Args:
        weights: (head, length, length) on the CPU, special tokens included.
        tokens: (length,), int64 ids.

    Returns:
        (20, head), float64, in the order of the alphabet.
    """
    # torch turns what it sums up into float64 first, and all at once would be as large as two layers.
    parts = ((part.sum(0, dtype=torch.float64) for part in head[1:-1].split(_ROWS_AT_ONCE)) for head in weights)
    received = torch.stack([torch.stack([*of_head]).sum(0) for of_head in parts])  # (head, length)
    is_amino_acid = tokens[:, None] == torch.arange(AMINO_ACID_IDS.start, AMINO_ACID_IDS.stop)  # (length, 20)
    return is_amino_acid.T.to(torch.float64) @ received.T


def attention_rollout_step(before: Tensor | None, weights: Tensor) -> Tensor:
    """Follow attention through one more layer: half of what flows stays where it is, half goes by the heads' mean.

    Args:
        before: (length, length), of the layers below; None for the first.
        weights: (head, length, length), special tokens included.

    Returns:
        (length, length); rows sum to one.

    Source: Abnar and Zuidema 2020, "Quantifying attention flow in transformers", section 3.
    """
    mixed = (weights.mean(0) + torch.eye(weights.shape[-1])) / 2
    return mixed if before is None else mixed @ before


def parse_region(text: str | None, num_residues: int) -> slice:
    """Read a stretch of residues such as `100-400`, numbered from 1; what lies beyond the protein is left out.

    Args:
        text: the stretch; None is the whole protein.
        num_residues: of the protein.

    Raises:
        ConfigError: it is no such stretch, or begins behind the protein's end.

    >>> parse_region("100-400", 250)
    slice(99, 250, None)
    """
    if text is None:
        return slice(0, num_residues)
    part = Region.parse(text).within(num_residues)
    if part is None:
        raise ConfigError("--region", text, f"a protein whose maps are kept has {num_residues} residues")
    return part


def parse_numbers(option: str, text: str, count: int) -> list[int]:
    """Read a list such as `1,4-6`, numbered from 1, or `all`.

    Args:
        option: its name, for messages.
        text: the list.
        count: how many there are.

    Returns:
        The chosen indices from 0, ascending, without repetition.

    Raises:
        ConfigError: it is no such list, or names what is not there.

    >>> parse_numbers("--heads", "1,4-6", 20)
    [0, 3, 4, 5]
    """
    if text == "all":
        return list(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(option, text, "all, or a list such as 1,4-6, is expected")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= count:
            raise ConfigError(option, text, f"this model has 1 to {count}, in rising order")
        chosen.update(range(low, high + 1))
    return sorted(number - 1 for number in chosen)


class MapFiles:
    """Makes and closes the files; a context in whose end none is left open.

    Args:
        directory: of the files.
        reader: of the maps: which layers and heads.
        config: which region, and in what format and precision.
    """

    def __init__(self, directory: Path, reader: AttentionExtractor, config: AttentionConfig) -> None:
        self._directory, self._reader, self._config = directory, reader, config
        self._open: dict[int, MapFile] = {}
        self._lock, self._is_left = Lock(), False
        self._paths: dict[str, Path] = {}

    def __enter__(self) -> "MapFiles":
        return self

    def __exit__(self, *exception: object) -> None:
        """Abandon what an error has left open; workers that are still at it begin no other."""
        with self._lock:
            self._is_left = True
            for maps in self._open.values():
                maps.abandon()

    def file(self, row: int, record: Record) -> Callable[[], MapFile] | None:
        """Prepare the file of a protein's maps, named by its row; None for a copy, which shares the first one's.

        Args:
            row: of the record, from 0.
            record: the protein.
        """
        if record.sequence in self._paths:
            return None
        path = self._directory / f"protein-{row + 1:06d}.{self._config.format}"
        self._paths[record.sequence] = path
        part = parse_region(self._config.region, len(record.sequence))
        num_residues = part.stop - part.start
        shape = (len(self._reader.layers), len(self._reader.heads), num_residues, num_residues)

        def make() -> MapFile:
            with self._lock:
                if self._is_left:
                    raise InterruptedError
                if row in self._open:  # memory did not suffice for the micro-batch, and its halves begin anew
                    self._open[row].abandon()
                self._open[row] = MapFile(path, shape, self._config.store_dtype)
                return self._open[row]

        return make

    def finish(self, record: Record, protein: ProteinAttention) -> str:
        """Write beside a protein's maps what they are, and what was computed from them; return the file's name."""
        if protein.file is not None:
            part = parse_region(self._config.region, protein.num_residues)
            arrays = {"contacts": protein.contacts, "rollout": protein.rollout}
            kept = {name: array[part, part] for name, array in arrays.items() if array is not None}
            layers, heads = (np.array(chosen) + 1 for chosen in (self._reader.layers, self._reader.heads))
            stored = {name: array.astype(self._config.store_dtype) for name, array in kept.items()}
            protein.file.close({**stored, "layers": layers, "heads": heads})
        return self._paths[record.sequence].name
