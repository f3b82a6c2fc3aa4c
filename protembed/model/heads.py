"""What stands on the encoder: the masked-LM head, the contact head, and the heads of tasks."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protembed.config.common import Task
from protembed.config.model_sizes import LAYER_NORM_EPS
from protembed.data.alphabet import AMINO_ACID_IDS, TOKENS

# Tokens that are no amino acid can never be a target; with this logit a 33-way softmax gives our 20-way probabilities.
NON_AMINO_ACID_BIAS = -100.0


class MaskedLMHead(nn.Module):
    """From a token's vector to its logits: dense, exact GELU, LayerNorm, the embedding transposed, a bias.

    The decoder has no weights of its own: it is given the encoder's embedding at each call.

    Args:
        dim: the encoder's width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.full((len(TOKENS),), NON_AMINO_ACID_BIAS))
        with torch.no_grad():
            self.bias[AMINO_ACID_IDS] = 0.0

    def forward(self, hidden: Tensor, embedding: Tensor, classes: slice = slice(None)) -> Tensor:
        """Compute logits.

        Args:
            hidden: (n, dim), final hidden states of any tokens.
            embedding: (33, dim), the encoder's embedding weights.
            classes: the token ids wanted; `AMINO_ACID_IDS` for the 20 amino acids.

        Returns:
            (n, classes).
        """
        features = self.layer_norm(F.gelu(self.dense(hidden)))
        return F.linear(features, embedding[classes], self.bias[classes])


class ContactHead(nn.Module):
    """ESM-2's contact predictor: a logistic regression over all heads' symmetrised, corrected attention maps.

    Its weights are fitted apart from training (they are buffers), and zero while unfitted.

    Args:
        num_maps: layers times heads.

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

    def forward(self, maps: Tensor) -> Tensor:
        """Predict contacts of one protein.

        Args:
            maps: (layer, head, residues, residues), special tokens removed.

        Returns:
            (residues, residues), probabilities.
        """
        return torch.sigmoid(torch.stack([self.of_layer(*layer) for layer in enumerate(maps)]).sum(0) + self.bias)

    def of_layer(self, layer: int, maps: Tensor) -> Tensor:
        """Add up what the heads of one layer say of one protein; a layer needs no other's maps.

        Args:
            layer: from 0.
            maps: (head, residues, residues), special tokens removed.

        Returns:
            (residues, residues); the sum over all layers, and the bias, are logits.
        """
        logits = torch.zeros_like(maps[0])
        # Head by head: all at once would take several times the memory of the maps.
        for weight, head in zip(self.weight[0, layer * len(maps) :], maps, strict=False):
            logits += weight * average_product_correction(head + head.T)
        return logits


def average_product_correction(maps: Tensor) -> Tensor:
    """Subtract what a pair owes to its row and column alone.

    Args:
        maps: (…, residues, residues), symmetric.

    Returns:
        The same shape.

    Source: Dunn et al. 2008, equation 2.
    """
    rows, columns = maps.sum(-1, keepdim=True), maps.sum(-2, keepdim=True)
    return maps - rows * columns / maps.sum((-1, -2), keepdim=True)


class TaskHead(nn.Module):
    """A linear map, or one with a hidden layer, on the vector of a protein or of each residue.

    Args:
        num_inputs: width of the vectors: the encoder's, as often as there are poolings.
        task: what is predicted.
        classes: the names of the classes or labels, or None for a value.
        num_hidden: units of a hidden layer; None: there is none.
        query_dim: width of a learned query, where residues are pooled by attention; None: they are not.
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
        # A query of zeros is the plain mean, from which it learns.
        self.query = None if query_dim is None else nn.Parameter(torch.zeros(query_dim))
        # A value is learned in units of the training labels' standard deviation, from their mean.
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        # The probability from which on a label is predicted; the best on the validation part.
        self.register_buffer("threshold", torch.full((), 0.5))

    @property
    def steepness(self) -> float:
        """The largest change of an output, a logit or a standardised value, when each input changes by at most one."""
        slopes = self.linear.weight.abs()  # (outputs, inputs), or (outputs, hidden)
        return (slopes if self.hidden is None else slopes @ self.hidden.weight.abs()).sum(1).max().item()

    @torch.no_grad()
    def soften(self, max_steepness: float) -> None:
        """Divide all outputs by the smallest number, of at least one, that brings the steepness to a maximum, in place.

        Predicted classes, and the order of values, stay the same; only the certainty, or the spread, is smaller.

        Args:
            max_steepness: The largest steepness that remains.
        """
        if self.steepness > max_steepness:
            share = max_steepness / self.steepness
            self.linear.weight.mul_(share)
            self.linear.bias.mul_(share)

    def forward(self, vectors: Tensor) -> Tensor:
        """Compute (n, classes) logits, or (n,) standardised values, from (n, inputs)."""
        output = self.linear(vectors if self.hidden is None else F.relu(self.hidden(vectors)))
        return cast("Tensor", output if self.classes else output.squeeze(-1))

    def predict(self, vectors: Tensor) -> Tensor:
        """Compute (n, classes) or (n, labels) probabilities, or (n,) values in the labels' units, from (n, inputs)."""
        output = self(vectors)
        if self.task.label_kind == "labels":
            return cast("Tensor", output.sigmoid())
        return cast("Tensor", output.softmax(-1) if self.classes else output * self.scale + self.offset)
