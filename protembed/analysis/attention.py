"""Attention maps of whole proteins, and what each head attends to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.data.batching import Batch
from protembed.errors import ConfigError
from protembed.model.encoder import Encoder
from protembed.model.heads import ContactHead

STATISTICS = ("entropy", "mean_distance", "on_self", "on_neighbours", "on_cls", "on_eos")


@dataclass(frozen=True, kw_only=True)
class ProteinAttention:
    """What is kept of one protein's attention.

    Attributes:
        maps: (layer, head, residues, residues), float32, of the chosen layers and heads; None where not wanted.
        contacts: (residues, residues), float32 probabilities; None without a fitted contact head or where not wanted.
        sums: (statistics, layer, head), float64, in the order of `STATISTICS`, summed over residues.
        num_residues: residues.
    """

    maps: NDArray[np.float32] | None
    contacts: NDArray[np.float32] | None
    sums: NDArray[np.float64]
    num_residues: int


@dataclass(frozen=True, kw_only=True)
class AttentionReader:
    """Computes the attention of whole proteins layer by layer; its `read` is what the engine computes.

    Attributes:
        encoder: on the device where it is to compute.
        layers: chosen layers, from 0.
        heads: chosen heads, from 0.
        contact_head: to predict contacts with, which takes the maps of all layers; None to leave them out.
    """

    encoder: Encoder
    layers: Sequence[int]
    heads: Sequence[int]
    contact_head: ContactHead | None = None

    def read(self, batch: Batch, *, is_kept: Sequence[bool]) -> list[ProteinAttention]:
        """Compute statistics of each protein of a batch, and maps and contacts of those that are to be kept."""
        pack = self.encoder.pack(batch.offsets)
        num_proteins = len(pack.lengths)
        sums: list[list[Tensor]] = [[] for _ in range(num_proteins)]
        kept: list[list[Tensor]] = [[] for _ in range(num_proteins)]
        needs_all = self.contact_head is not None
        for layer, maps in enumerate(self.encoder.attention_maps(batch.tokens.to(pack.offsets.device), pack)):
            for protein, weights in enumerate(maps):  # (head, length, length)
                weights = weights.cpu()
                sums[protein].append(head_statistics(weights))
                if is_kept[protein] and (needs_all or layer in self.layers):
                    kept[protein].append(weights[:, 1:-1, 1:-1])
        return [
            self._protein(torch.stack(sums[protein], dim=1), kept[protein], pack.lengths[protein] - 2)
            for protein in range(num_proteins)
        ]

    def _protein(self, sums: Tensor, kept: list[Tensor], num_residues: int) -> ProteinAttention:
        if not kept:
            return ProteinAttention(maps=None, contacts=None, sums=sums.numpy(), num_residues=num_residues)
        maps, contacts = torch.stack(kept), None  # (layer, head, residues, residues)
        if self.contact_head is not None:
            contacts = self.contact_head(maps).numpy()
            maps = maps[list(self.layers)]
        chosen = maps[:, list(self.heads)].numpy()
        return ProteinAttention(maps=chosen, contacts=contacts, sums=sums.numpy(), num_residues=num_residues)


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
        return np.asarray(self.sums / self.num_residues) if self.num_residues else np.zeros((len(STATISTICS), 0, 0))


def head_statistics(weights: Tensor) -> Tensor:
    """Sum what each head does over the residues of one protein.

    The entropy (nats) and the shares on the residue itself, on its two neighbours, on `<cls>` and on `<eos>` are over
    all tokens that a residue attends to; the mean distance (residues) is over the residues among them.

    Args:
        weights: (head, length, length) on the CPU, special tokens included; rows sum to one.

    Returns:
        (statistics, head), float64, in the order of `STATISTICS`.
    """
    rows = weights[:, 1:-1]  # (head, residues, length): what residues attend to
    among_residues = rows[..., 1:-1]  # (head, residues, residues)
    places = torch.arange(among_residues.shape[-1])
    distance = (places[:, None] - places).abs()
    on_residues = among_residues.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny)
    per_residue = (
        torch.special.entr(rows).sum(-1),
        (among_residues * distance).sum(-1) / on_residues,
        among_residues.diagonal(dim1=-2, dim2=-1),
        (among_residues * (distance == 1)).sum(-1),
        rows[..., 0],
        rows[..., -1],
    )
    return torch.stack([values.sum(-1, dtype=torch.float64) for values in per_residue])


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
