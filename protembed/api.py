"""The front door for Python: a model that is loaded once, with methods that turn sequences into arrays."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from protembed.config.common import InferenceDeviceConfig, OffloadName, Region, choose_region
from protembed.config.embed import EmbedConfig, EmbedPrecisionName
from protembed.config.fill import DEFAULT_SEED, DEFAULT_TEMPERATURE, DEFAULT_TOP, FillConfig
from protembed.data.alphabet import MASK_LETTER, encode
from protembed.data.batching import Batch
from protembed.data.sequences import (
    AnySequence,
    AnySequences,
    Protein,
    is_one_sequence,
    read_one_sequence,
    read_sequences,
)
from protembed.device import choose_device
from protembed.errors import ModelFormatError, SequenceError
from protembed.finetuning.prediction import prediction_columns, require_head
from protembed.inference.applicability import InputComparison
from protembed.inference.computation import Computation, visit_attention
from protembed.inference.embedding import Embedder, Embedding, check_finite, vector_precision
from protembed.inference.engine import Engine, InferenceJob, inference_engine, whole_proteins
from protembed.inference.loading import load_for_inference
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.io.reading import PathLike
from protembed.model.catalog import ResolvedModel, locate_model
from protembed.model.checkpoint import Checkpoint, load_checkpoint
from protembed.scoring.filling import Draft, RankedResidue, SequenceSampler, rank_residues

Layers = int | str | Iterable[int]


class ProtembedWarning(UserWarning):
    """A model or a sequence for which results may be wrong; the sentences are those that the commands print."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Model:
    """A model that `load_model` loaded. Its methods compute the same numbers as the commands.

    A sequence is a text, or a record of `read_fasta` or Biopython. It is read as from FASTA: in upper case, without
    white space and a final `*`, and with J as X. `?` or `<mask>` is a masked position. Anything else is a
    `SequenceError`. Vectors and log probabilities of proteins longer than the model's window are computed in windows. A
    model that was fine-tuned on a region of each protein uses that region of each sequence.

    Attributes:
        source: The files of the model.
        checkpoint: The encoder, a `torch.nn.Module`, with its heads and metadata; its matrix products are in
            `precision`. If its layers stay in the files, only the methods can compute with it.
        precision: Precision of the matrix products behind vectors and log probabilities; attention, contacts and
            predictions are computed in float32, for which another precision reads the files layer by layer.
        options: Options of the device, its threads, and what of the model is in memory.
    """

    source: ResolvedModel
    checkpoint: Checkpoint
    precision: torch.dtype
    options: InferenceDeviceConfig

    @property
    def name(self) -> str:
        """Name that results of the model record."""
        return self.source.name

    @property
    def device(self) -> torch.device:
        """Device that computes."""
        return self.checkpoint.device

    @property
    def dim(self) -> int:
        """Width of a residue's vector."""
        return self.checkpoint.encoder.shape.dim

    @property
    def num_layers(self) -> int:
        """Number of layers; layer 0 is the input embedding."""
        return self.checkpoint.encoder.shape.num_layers

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Classes or labels that a fine-tuned model predicts; None for a model that predicts values or nothing."""
        return self.checkpoint.metadata.classes

    def __repr__(self) -> str:
        target = self.checkpoint.metadata.target
        predicts = "" if target is None else f", predicts {target!r}"
        size = f"{self.num_layers} layers, {self.checkpoint.num_parameters / 1e6:,.1f} M parameters"
        how = "" if self.checkpoint.offloaded is None else ", layer by layer"
        return f"<Model {self.name}: dim {self.dim}, {size}{predicts}, on {self.device}{how}>"

    def embed(
        self, sequences: AnySequences, pooling: str | Iterable[str] | None = None, layer: Layers | None = None
    ) -> NDArray[np.float32]:
        """Compute a vector for each protein.

        Args:
            sequences: One sequence, or several.
            pooling: How residue vectors become one: `mean`, `max`, `std` or `cls`, or several of them, whose vectors
                are concatenated; by default as the model was trained, else `mean`.
            layer: Number of a layer, `last` or `all`, or several numbers, whose vectors are concatenated; by default as
                the model records, else the last.

        Returns:
            Vectors, (proteins, dim), float32, in the order of the sequences.

        Raises:
            ConfigError: The model has no such layer, or there is no such pooling.

        >>> load_model().embed(["MKTAYIAKQR", "MSILVTRPSP"], layer=3).shape
        (2, 320)
        """
        embedder = self._embedder(pooling, layer)
        width = len(embedder.layers) * self.dim
        _, vectors = self._compute(self.checkpoint, embedder.proteins(), sequences, width)
        return np.array(vectors, dtype=np.float32).reshape(-1, embedder.slices(per_residue=False)[-1]["stop"])

    @overload
    def embed_residues(  # type: ignore[overload-overlap]  # a text is an iterable of texts too
        self, sequences: AnySequence, layer: Layers | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def embed_residues(
        self, sequences: Iterable[AnySequence], layer: Layers | None = None
    ) -> list[NDArray[np.float32]]: ...
    def embed_residues(
        self, sequences: AnySequences, layer: Layers | None = None
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Compute a vector for each residue.

        Args:
            sequences: One sequence, or several.
            layer: Number of a layer, `last` or `all`, or several numbers, whose vectors are concatenated; by default as
                the model records, else the last.

        Returns:
            Vectors, (residues, dim), float32; for several sequences, a list of them.

        Raises:
            ConfigError: The model has no such layer.

        >>> load_model().embed_residues("MKTAYIAKQR").shape
        (10, 320)
        """
        embedder = self._embedder(None, layer)
        width = len(embedder.layers) * self.dim
        _, vectors = self._compute(self.checkpoint, embedder.residues(), sequences, width)
        return vectors[0] if is_one_sequence(sequences) else vectors

    def log_probs(self, sequence: AnySequence, masked: bool = True) -> NDArray[np.float32]:
        """Compute the log probabilities of the 20 amino acids at each position, from which `score` makes its scores.

        What is `?` or `<mask>` in the sequence is masked in every pass. With `masked=False`, the rows of these
        positions are those that `fill` ranks.

        Args:
            sequence: One sequence.
            masked: Whether each position is masked when its probabilities are computed, in one pass per position;
                otherwise all of them come from one pass, in which the model sees the residues.

        Returns:
            Natural logarithms of the probabilities, (residues, 20), float32, in the order of `protembed.AMINO_ACIDS`.

        Raises:
            ModelFormatError: The model has no masked-LM head.

        >>> load_model().log_probs("MKTAYIAKQR").shape
        (10, 20)
        """
        protein, marginals = read_one_sequence(sequence), self._marginals()
        query = PositionQuery(residues=encode(protein.sequence), positions=np.arange(len(protein.sequence)))
        return self._log_probs(protein, query, marginals.masked() if masked else marginals.unmasked())

    def fill(self, sequence: AnySequence, top: int = DEFAULT_TOP) -> dict[str, Any]:
        """Compute the most probable residues at each masked position, `?` or `<mask>`, in one pass.

        All masked positions are masked together, so the residues of two of them may not fit one another; `sample`
        draws them one after the other.

        Args:
            sequence: One sequence with at least one masked position.
            top: Number of residues at each position, from 1 to 20.

        Returns:
            The columns of the table that `protembed score --fill` writes, with all digits: `position` (from 1), `rank`,
            `residue` and `probability`, (positions × top,) each, the most probable residue of a position first.

        Raises:
            SequenceError: No position is masked.
            ConfigError: The number of residues is out of range.
            ModelFormatError: The model has no masked-LM head.

        >>> filled = load_model().fill("MKTAYIAK?RQISFVKSHFSRQ", top=3)
        >>> filled["position"], filled["rank"], len(filled["residue"]), sum(filled["probability"]) < 1
        ([9, 9, 9], [1, 2, 3], 3, True)
        """
        FillConfig(fill=True, top=top)  # which checks the number
        protein, marginals = _with_masks(read_one_sequence(sequence)), self._marginals()
        query = PositionQuery.masked(encode(protein.sequence))
        ranked = list(rank_residues(query, self._log_probs(protein, query, marginals.unmasked()), top))
        return {name: [getattr(row, name) for row in ranked] for name in RankedResidue._fields}

    def sample(
        self,
        sequence: AnySequence,
        num_samples: int = 1,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int = DEFAULT_SEED,
    ) -> list[str]:
        """Fill in all masked positions, `?` or `<mask>`, with residues that are drawn one after the other.

        In each pass, the residue is drawn at the most certain position: that whose most probable residue has the
        highest probability given the residues that were drawn before. One sample takes a pass for each masked position.

        Args:
            sequence: One sequence with at least one masked position.
            num_samples: Number of sequences that are drawn.
            temperature: Probabilities are raised to the power of its inverse; 0 takes the most probable residue.
            seed: Seed of the draws; the sequence, the seed and a sample's number, from 1, determine the sample.

        Returns:
            The sequences, those of `protembed score --fill --samples`.

        Raises:
            SequenceError: No position is masked.
            ConfigError: An argument is out of range.
            ModelFormatError: The model has no masked-LM head.

        >>> [sample] = load_model().sample("MKTAYIAK??QISFVKSHFSRQ", temperature=0.5)
        >>> sample[:8], len(sample), "?" in sample
        ('MKTAYIAK', 22, False)
        """
        FillConfig(fill=True, samples=num_samples, temperature=temperature, seed=seed)  # which checks the numbers
        protein = _with_masks(read_one_sequence(sequence))
        sampler = SequenceSampler(marginals=self._marginals(), temperature=temperature, precision=self.precision)
        drafts = [
            Draft.begin(protein.id, protein.sequence, seed=seed, number=number) for number in range(1, num_samples + 1)
        ]
        with self._engine(self.checkpoint) as engine:
            return [draft.sequence for draft in sampler.complete(engine, drafts)]

    def attention(self, sequence: AnySequence) -> NDArray[np.float32]:
        """Compute the attention maps of all heads, without the special tokens.

        Returns:
            Weights, (layers, heads, residues, residues), float32: how much the residue of a row attends to the residue
            of a column.

        >>> load_model().attention("MKTAYIAKQR").shape
        (6, 20, 10, 10)
        """
        maps = list[torch.Tensor]()
        return self._attend(sequence, lambda layer, weights: maps.append(weights), lambda: torch.stack(maps))

    def contacts(self, sequence: AnySequence) -> NDArray[np.float32]:
        """Predict which residues are in contact, from a contact head that was fitted to structures.

        Returns:
            Probabilities, (residues, residues), float32, symmetric.

        Raises:
            ModelFormatError: The model has no fitted contact head.
        """
        head = self.checkpoint.contact_head
        if not head.is_fitted:
            advice = "published ESM-2 models have one, and `protembed inspect-attention --structures` fits one"
            raise ModelFormatError(Path(self.name), "the model has no fitted contact head", advice)
        head, logits = head.cpu(), list[torch.Tensor]()

        def add(layer: int, weights: torch.Tensor) -> None:
            logits[:] = [sum(logits, head.layer_logits(layer, weights))]

        return self._attend(sequence, add, lambda: (logits[0] + head.bias).sigmoid())

    def predict(self, sequences: AnySequences) -> dict[str, Any]:
        """Predict with a fine-tuned model.

        Returns:
            The columns of the table that `protembed predict` writes, with all digits, so that
            `pd.DataFrame(model.predict(sequences))` is that table: `id`, `prediction`, and the probability of each
            class as `p_CLASS`, (proteins,), float32. For a task that predicts each residue, probabilities and values
            are lists of (residues,) arrays.

        Raises:
            NotFinetunedError: The model was not fine-tuned.
        """
        head = require_head(self.checkpoint, self.name)
        job = Embedder.from_checkpoint(self._exact).predictions(head)
        proteins, predictions = self._compute(self._exact, job, sequences)
        columns: dict[str, Any] = {"id": [protein.id for protein in proteins]}
        if self._region is not None:
            columns["first_residue"] = [self._region.first for _ in proteins]
            columns["last_residue"] = [self._region.first + len(protein.sequence) - 1 for protein in proteins]
        return columns | prediction_columns(predictions, head)

    @property
    def _region(self) -> Region | None:
        return choose_region("auto", self.checkpoint.metadata.region)

    @cached_property
    def _exact(self) -> Checkpoint:
        """The model with matrix products in float32, of which one layer is in memory if `precision` is another one."""
        if self.precision == torch.float32:
            return self.checkpoint
        return load_checkpoint(self.source, device=self.device, offload=True)

    def _marginals(self) -> Marginals:
        for sentence in self.checkpoint.lm_head_warnings:
            warnings.warn(sentence, ProtembedWarning, stacklevel=3)
        return Marginals.from_checkpoint(self.checkpoint)

    def _log_probs(
        self, protein: Protein, query: PositionQuery, job: InferenceJob[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        with self._engine(self.checkpoint) as engine:
            [(_, log_probs)] = engine.run(job, [query])
        check_finite(protein.id, log_probs, "log probabilities")
        return log_probs

    def _embedder(self, pooling: str | Iterable[str] | None, layer: Layers | None) -> Embedder:
        config = EmbedConfig(  # which converts lists and numbers
            pooling="auto" if pooling is None else pooling,  # type: ignore[arg-type]
            layer="auto" if layer is None else layer,  # type: ignore[arg-type]
        )
        return Embedder.from_checkpoint(self.checkpoint, layer=config.layer, pooling=config.pooling)

    @contextmanager
    def _engine(self, checkpoint: Checkpoint, width: int | None = None) -> Iterator[Engine]:
        layers, shape = checkpoint.offloaded, checkpoint.encoder.shape
        with nullcontext() if layers is None else layers.lock:
            with inference_engine(self.options, checkpoint.device, shape, width, layers=layers) as engine:
                yield engine

    def _compute(
        self, checkpoint: Checkpoint, job: InferenceJob[Any], sequences: AnySequences, width: int | None = None
    ) -> tuple[list[Protein], list[NDArray[np.float32]]]:
        """Run a job on each protein or its region, and warn if a fine-tuned model does not fit the proteins."""
        proteins = read_sequences(sequences, self._region)
        comparison = InputComparison.from_checkpoint(self.checkpoint, self._region)
        with self._engine(checkpoint, width) as engine:
            results = [result for _, result in engine.run(job, comparison.observe(proteins))]
        for sentence in comparison.warnings():
            warnings.warn(sentence, ProtembedWarning, stacklevel=3)
        arrays = [result.values if isinstance(result, Embedding) else result for result in results]
        precision = self.precision if checkpoint is self.checkpoint else torch.float32
        for protein, array in zip(proteins, arrays, strict=True):
            check_finite(protein.id, array, "results", precision)
        return proteins, arrays

    def _attend(
        self,
        sequence: AnySequence,
        add: Callable[[int, torch.Tensor], None],
        finish: Callable[[], torch.Tensor],
    ) -> NDArray[np.float32]:
        """Compute a result from the number and the maps of each layer, (heads, residues, residues), on the CPU."""
        protein, encoder = read_one_sequence(sequence), self._exact.encoder

        def compute(batch: Batch) -> Computation[list[NDArray[np.float32]]]:
            yield from visit_attention(encoder, batch, lambda layer, _, weights: add(layer, weights[:, 1:-1, 1:-1]))
            return [finish().numpy()]

        with self._engine(self._exact) as engine:
            [(_, result)] = engine.run(whole_proteins(compute), [protein])
        check_finite(protein.id, result, "results")
        return result


def _with_masks(protein: Protein) -> Protein:
    """Check that at least one position of a protein is masked."""
    if MASK_LETTER not in protein.sequence:
        raise SequenceError("the sequence", "no position is masked", "write ? or <mask> where residues are to be found")
    return protein


def load_model(
    name: PathLike | None = None,
    *,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    precision: EmbedPrecisionName = "auto",
    threads: int | None = None,
    offload: OffloadName = "auto",
) -> Model:
    """Load a model.

    Args:
        name: A model directory, a run directory of `pretrain`, a bundled model, or a model on the Hugging Face hub, as
            the commands take it; by default the bundled one. `list_models` lists the names.
        device: Where to compute; `auto` uses a GPU if there is one.
        precision: Precision of the matrix products; `auto` is bfloat16 on GPUs that support it, else float32, and
            float32 for a fine-tuned model.
        threads: CPU threads; by default as many as the commands use.
        offload: `always` leaves the layers in the files, from which each call reads them one by one, and `auto` only
            those of a model that does not fit into the memory of the device. The results are the same.

    Raises:
        ConfigError: The device is not available, or there is no such precision.
        InputNotFoundError: There is no such model.
        ModelFormatError: The model is of another architecture, or its files are damaged.
        HubError: The hub does not respond.

    >>> load_model(device="cpu")
    <Model protembed_t6_8M: dim 320, 6 layers, 7.5 M parameters, on cpu>
    """
    options = InferenceDeviceConfig(device=device, threads=threads, offload=offload)
    requested = EmbedConfig(precision=precision).precision
    chosen, source = choose_device(options), locate_model(name)
    resolved = vector_precision(requested, source.metadata, chosen)
    checkpoint = load_for_inference(source, options, resolved)
    for sentence in checkpoint.warnings:
        warnings.warn(sentence, ProtembedWarning, stacklevel=2)
    return Model(source=source, checkpoint=checkpoint, precision=resolved, options=options)
