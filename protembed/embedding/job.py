"""An embedding that is ready to be computed: the request, and its model on the device that computes."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from protembed.callbacks import Callbacks
from protembed.data.fasta import ReadStatistics
from protembed.embedding.request import EmbeddingRequest
from protembed.inference.applicability import InputComparison
from protembed.inference.embedding import Embedder, Embedding
from protembed.inference.engine import Engine, InferenceJob, inference_engine
from protembed.inference.loading import load_for_inference
from protembed.inference.precision import describe_faster_precision
from protembed.model.checkpoint import Checkpoint
from protembed.resources import num_threads


@dataclass(frozen=True, kw_only=True)
class EmbeddingJob:
    """What is to be embedded, and the model that computes it."""

    request: EmbeddingRequest
    checkpoint: Checkpoint
    embedder: Embedder

    @classmethod
    def load(cls, request: EmbeddingRequest, precision: str, callbacks: Callbacks | None = None) -> "EmbeddingJob":
        """Load the model on the device, with matrix products of this precision.

        Raises:
            ProtembedError: The model is damaged, or the device is not available.
        """
        config = request.config
        checkpoint = load_for_inference(request.model, request.options.compute, getattr(torch, precision), callbacks)
        embedder = Embedder.from_checkpoint(
            checkpoint,
            layer=config.layer,
            pooling=config.pooling,
            window_residues=request.selection.window_residues,
        )
        return cls(request=request, checkpoint=checkpoint, embedder=embedder)

    @property
    def numbers_per_token(self) -> int:
        """Numbers that are held in memory for each token while its protein is computed."""
        return len(self.embedder.layers) * self.checkpoint.encoder.shape.dim

    @property
    def computation(self) -> InferenceJob[Embedding]:
        """Computation that the engine runs on each batch."""
        return self.embedder.residues() if self.request.config.per_residue else self.embedder.proteins()

    def engine(self) -> AbstractContextManager[Engine]:
        """Make the engine that computes, with its workers."""
        checkpoint, compute = self.checkpoint, self.request.options.compute
        shape, layers = checkpoint.encoder.shape, checkpoint.offloaded
        return inference_engine(compute, checkpoint.device, shape, self.numbers_per_token, layers=layers)

    def describe_faster_precision(self, num_residues: int) -> str | None:
        """Say in a sentence which precision would be faster than the one that `auto` chose; None if none would be.

        A fine-tuned model's head was trained on vectors in float32.
        """
        request, model = self.request, self.request.model
        is_chosen = request.config.precision == "auto" and model.metadata.target is None
        if not is_chosen or self.checkpoint.device.type != "cpu":
            return None
        return describe_faster_precision(model.shape, num_residues, num_threads(request.options.compute))

    def compare_input(self) -> InputComparison:
        """Begin to compare the proteins with those that a fine-tuned model was trained on."""
        return InputComparison.from_checkpoint(self.checkpoint, self.request.selection.region)

    def warnings(self, statistics: ReadStatistics, comparison: InputComparison) -> list[str]:
        """Describe what is doubtful about the model and the input that was read.

        There is nothing to say about a model if the options specify everything that it does not record.
        """
        config = self.request.config
        is_specified = config.layer != "auto" and config.window_residues is not None
        of_model = [] if is_specified else self.checkpoint.warnings
        return [*of_model, *statistics.warnings(), *comparison.warnings()]
