"""The representation of a protein: the vectors of its residues, or the one vector into which they are pooled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protembed.config.common import Span
from protembed.config.embed import EmbedPrecisionName
from protembed.data.alphabet import CLS, EOS, encode
from protembed.data.batching import Batch, Tokens, make_crop
from protembed.data.windows import window_spans
from protembed.device import choose_precision, to_device
from protembed.errors import NotFiniteError
from protembed.inference.computation import Computation, take_states
from protembed.inference.engine import HasSequence, InferenceJob
from protembed.model.checkpoint import Checkpoint
from protembed.model.encoder import Encoder, PackedLayout
from protembed.model.heads import TaskHead
from protembed.model.metadata import ModelMetadata
from protembed.model.pooling import merge_windows, overlap_cosine, pool_protein, residues_of, strip_special_tokens
from protembed.model.representation import Representation


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The representation of one protein.

    Attributes:
        values: The vector of the protein, (dim,), or those of its residues, (residues, dim), float32.
        overlap_cosine: The mean cosine similarity of neighbouring windows where they overlap; None for one window.
    """

    values: NDArray[np.float32]
    num_windows: int = 1
    overlap_cosine: float | None = None


def check_finite(
    record_id: str, values: NDArray[np.floating], what: str = "vectors", precision: torch.dtype = torch.float32
) -> None:
    """Check that the values computed for a protein are finite; the message names them and their precision.

    Raises:
        NotFiniteError: A value is infinite or not a number.
    """
    if not np.isfinite(values).all():
        raise NotFiniteError(record_id, str(precision).removeprefix("torch."), "float32", what=what)


# For each protein, the vector of `<cls>`, (dim,), and those of its residues, (residues, dim).
_Proteins = Sequence[tuple[Tensor, Tensor]]


def _are_whole(batch: Batch) -> bool:
    """Return whether the crops of a batch are whole proteins, which the engine never mixes with windows."""
    return bool(batch.tokens[0] == CLS and batch.tokens[batch.offsets[1] - 1] == EOS)


def vector_precision(requested: EmbedPrecisionName, metadata: ModelMetadata, device: torch.device) -> torch.dtype:
    """Choose the precision of the matrix products behind vectors; auto is float32 for a fine-tuned model.

    A head was trained on vectors in float32, and `predict` uses float32 too.
    """
    is_exact = requested == "auto" and metadata.target is not None
    return torch.float32 if is_exact else choose_precision(requested, device)


def _as_array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array


@dataclass(frozen=True, kw_only=True)
class Embedder(Representation):
    """Computes representations of proteins from layers of an encoder.

    Attributes:
        window_residues: The length of the windows in which longer proteins are computed, in residues; None to compute
            every protein whole.
        query: The query of a learned pooling by attention, (dim,); None for all other poolings.
    """

    encoder: Encoder
    window_residues: int | None
    query: Tensor | None = None

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, *, layer: str = "auto", pooling: str = "auto", window_residues: int | None = None
    ) -> "Embedder":
        """Choose the layers and poolings that represent a protein.

        Args:
            checkpoint: The model; its metadata decide where the other arguments are `auto` or None.
            layer: `auto`, `last`, `all`, or numbers and ranges, as in `0,3-6`.
            pooling: `auto`, or names of `PoolingName`, as in `mean,std`.
            window_residues: The length of the windows in which longer proteins are computed.

        Raises:
            ConfigError: The model has no such layer, or there is no such pooling.
        """
        query = None if checkpoint.task_head is None else checkpoint.task_head.query
        chosen = cls.choose(
            checkpoint.encoder.shape,
            checkpoint.metadata,
            layer=layer,
            pooling=pooling,
            has_query=query is not None,
        )
        return cls(
            **vars(chosen),
            encoder=checkpoint.encoder,
            window_residues=window_residues or checkpoint.metadata.window_residues,
            query=query if "attention" in chosen.poolings else None,
        )

    def proteins(self) -> InferenceJob[Embedding]:
        """Make the job that computes one vector per protein, (poolings · layers · dim,)."""
        return self._job(lambda proteins: list(_as_array(self._pool(proteins))))

    def residues(self) -> InferenceJob[Embedding]:
        """Make the job that computes one vector per residue: for each protein (residues, layers · dim)."""
        return self._job(lambda proteins: [_as_array(residues) for _, residues in proteins])

    def predictions(self, head: TaskHead) -> InferenceJob[NDArray[np.float32]]:
        """Make the job that computes a head's predictions for each protein or for each of its residues.

        The head is on the encoder's device; its `predict` describes the predictions.
        """

        def predict(proteins: _Proteins) -> list[NDArray[np.float32]]:
            device = head.scale.device  # windows are merged on the CPU
            proteins = [(cls.to(device), residues.to(device)) for cls, residues in proteins]
            if head.task.per_residue:
                return [_as_array(head.predict(residues)) for _, residues in proteins]
            return list(_as_array(head.predict(self._pool(proteins))))

        job = self._job(predict)
        return InferenceJob(
            crops=job.crops, compute=job.compute, join=lambda protein, parts: job.join(protein, parts).values
        )

    def _job(self, values_of: Callable[[_Proteins], list[NDArray[np.float32]]]) -> InferenceJob[Embedding]:
        """Make the job that computes values from the vectors of proteins, whole or merged from their windows."""

        def spans(protein: HasSequence) -> list[Span]:
            return window_spans(len(protein.sequence), self.window_residues or len(protein.sequence))

        def crops(protein: HasSequence) -> list[Tokens]:
            residues = encode(protein.sequence)
            return [make_crop(residues, *span) for span in spans(protein)]

        def compute(batch: Batch) -> Computation[list[Embedding] | list[Tensor]]:
            hidden, layout = yield from self._hidden(batch)
            if not _are_whole(batch):
                return [window for (window,) in layout.split(hidden.float().cpu())]
            proteins = [(protein[0], residues_of(protein)) for (protein,) in layout.split(hidden)]
            return [Embedding(values=values) for values in values_of(proteins)]

        def join(protein: HasSequence, parts: Sequence[Any]) -> Embedding:
            if len(parts) == 1:
                return cast("Embedding", parts[0])
            windows = spans(protein)
            (values,) = values_of([merge_windows(parts, windows)])
            agreement = overlap_cosine(strip_special_tokens(parts, windows), windows)
            return Embedding(values=values, num_windows=len(windows), overlap_cosine=agreement)

        return InferenceJob(crops=crops, compute=compute, join=join)

    def _pool(self, proteins: _Proteins) -> Tensor:
        """Pool the vectors of each protein's residues, (proteins, poolings · layers · dim)."""
        query = None if self.query is None else self.query.to(proteins[0][0].device)
        return torch.stack([pool_protein(cls, residues, self.poolings, query) for cls, residues in proteins])

    def _hidden(self, batch: Batch) -> Computation[tuple[Tensor, PackedLayout]]:
        """Compute the vectors of all tokens, (tokens, layers · dim)."""
        layout = self.encoder.layout(batch.offsets)
        states = self.encoder.hidden_states(to_device(batch.tokens, layout.offsets.device), layout)
        outputs = yield from take_states(states, self.layers)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1), layout
