"""Heads on the encoder: the masked-LM head, the contact head, and the heads of tasks."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protembed.config.common import Task
from protembed.config.model_sizes import LAYER_NORM_EPS
from protembed.data.alphabet import AMINO_ACID_IDS, TOKENS

# Tokens that are not amino acids are never targets; with this bias a 33-way softmax equals protembed's 20-way softmax.
NON_AMINO_ACID_BIAS = -100.0


class MaskedLMHead(nn.Module):
    """ESM-2's masked-LM head, from a token's vector to its logits: dense, exact GELU, LayerNorm, decoder.

    The decoder is the transposed embedding of the encoder, passed at each call, with a bias.

    Args:
        dim: The width of the encoder.
        num_rows: The number of rows of the encoder's embedding.
    """

    def __init__(self, dim: int, num_rows: int = len(TOKENS)) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.full((num_rows,), NON_AMINO_ACID_BIAS))
        with torch.no_grad():
            self.bias[AMINO_ACID_IDS] = 0.0

    def forward(self, hidden: Tensor, embedding: Tensor, classes: slice = slice(None)) -> Tensor:
        """Compute logits.

        Args:
            hidden: Final hidden states of any tokens, (n, dim).
            embedding: The encoder's embedding weights, (rows, dim), which decode where the head has no decoder.
            classes: The token ids to predict; `AMINO_ACID_IDS` for the 20 amino acids.

        Returns:
            The logits, (n, classes).
        """
        features = self.layer_norm(F.gelu(self.dense(hidden)))
        return F.linear(features, self._decoder(embedding)[classes], self.bias[classes])

    def _decoder(self, embedding: Tensor) -> Tensor:
        return embedding


def average_product_correction(maps: Tensor) -> Tensor:
    """Subtract from symmetric maps, (…, residues, residues), what the row and the column of each pair explain.

    Source: Dunn et al. 2008, equation 2.
    """
    rows, columns = maps.sum(-1, keepdim=True), maps.sum(-2, keepdim=True)
    return maps - rows * columns / maps.sum((-1, -2), keepdim=True)


class ContactHead(nn.Module):
    """ESM-2's contact predictor: a logistic regression over all heads' symmetrised, corrected attention maps.

    Its weights are fitted apart from training (they are buffers), and zero while unfitted.

    Args:
        num_maps: The number of attention maps, layers times heads.

    Source: Rao et al. 2021, "Transformer protein language models are unsupervised structure learners", section 3.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(1, num_maps))
        self.register_buffer("bias", torch.zeros(1))

    @property
    def is_fitted(self) -> bool:
        """Whether any weight differs from zero."""
        return bool(self.weight.any())

    def forward(self, maps: Iterable[Tensor]) -> Tensor:
        """Predict the probabilities of one protein's contacts, (residues, residues), from the maps of all layers."""
        return torch.sigmoid(sum(self.layer_logits(*layer) for layer in enumerate(maps)) + self.bias)

    def layer_logits(self, layer: int, maps: Tensor) -> Tensor:
        """Compute the contribution of one layer, from 0, to the logits of one protein, (residues, residues).

        The maps are those of the layer without special tokens, (head, residues, residues). The logits are the sum over
        all layers, plus the bias.
        """
        logits = torch.zeros_like(maps[0])
        # Head by head: all at once would take several times the memory of the maps.
        for weight, head in zip(self.weight[0, layer * len(maps) :], maps, strict=False):
            logits += weight * average_product_correction(head + head.T)
        return logits


class TaskHead(nn.Module):
    """A linear map, or one with a hidden layer, on the vector of a protein or of each residue.

    Args:
        num_inputs: The width of the vectors: the encoder's width times the number of poolings.
        task: The task of the head.
        classes: The names of the classes or labels; None for a value.
        num_hidden: The number of units of the hidden layer; None for no hidden layer.
        query_dim: The width of the learned query of pooling by attention; None for other poolings.
    """

    offset: Tensor
    scale: Tensor
    threshold: Tensor

    def __init__(
        self,
        num_inputs: int,
        task: Task,
        classes: Sequence[str] | None,
        *,
        num_hidden: int | None = None,
        query_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.classes = None if classes is None else tuple(classes)
        self.hidden = None if num_hidden is None else nn.Linear(num_inputs, num_hidden)
        self.linear = nn.Linear(num_hidden or num_inputs, 1 if classes is None else len(classes))
        # Training starts with a query of zeros, which gives the plain mean.
        self.query = None if query_dim is None else nn.Parameter(torch.zeros(query_dim))
        # Values are standardised by the mean and standard deviation of the training labels.
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        # The lowest probability at which a label is predicted, chosen on the validation split.
        self.register_buffer("threshold", torch.full((), 0.5))

    @property
    def steepness(self) -> float:
        """The largest change of a logit or standardised value when each input changes by at most one."""
        slopes = self.linear.weight.abs()  # (outputs, inputs), or (outputs, hidden)
        return (slopes if self.hidden is None else slopes @ self.hidden.weight.abs()).sum(1).max().item()

    @torch.no_grad()
    def soften(self, max_steepness: float) -> None:
        """Scale the weights down until the steepness is at most a maximum, in place.

        Predicted classes, and the order of values, stay the same; only the certainty, or the spread, is smaller.
        """
        if self.steepness > max_steepness:
            factor = max_steepness / self.steepness
            self.linear.weight.mul_(factor)
            self.linear.bias.mul_(factor)

    def forward(self, vectors: Tensor) -> Tensor:
        """Compute (n, classes) logits, or (n,) standardised values, from (n, inputs)."""
        prediction = self.linear(vectors if self.hidden is None else F.relu(self.hidden(vectors)))
        return cast("Tensor", prediction if self.classes else prediction.squeeze(-1))

    def predict(self, vectors: Tensor) -> Tensor:
        """Compute (n, classes) or (n, labels) probabilities, or (n,) values in the labels' units, from (n, inputs)."""
        prediction = self(vectors)
        if self.task.label_kind == "labels":
            return cast("Tensor", prediction.sigmoid())
        return cast("Tensor", prediction.softmax(-1) if self.classes else prediction * self.scale + self.offset)
