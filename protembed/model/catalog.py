"""Models by name: on disk, bundled, or on the Hugging Face hub; what their descriptions say. No torch."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from protembed.config.common import DEFAULT_MODEL
from protembed.config.model_sizes import BYTES_PER_NUMBER, EncoderShape
from protembed.errors import InputNotFoundError, ModelFormatError
from protembed.io.reading import PathLike, as_path
from protembed.model.formats import read_shape
from protembed.model.hub import fetch_model, is_hub_name
from protembed.model.metadata import ModelMetadata, read_metadata
from protembed.model.published import (
    BYTES_PER_BFLOAT16,
    PUBLISHED_MODELS,
    PublishedModel,
    embedding_bytes,
    similar_models,
)
from protembed.model.unsupported import check_name, check_pickles
from protembed.model.untrusted import model_sha256
from protembed.text import reason_of

_BUNDLED = Path(__file__).parent.parent / "bundled"


def bundled_models() -> list[Path]:
    """List the directories of the models that come with protembed, in the order of their names."""
    return sorted(path.parent for path in _BUNDLED.glob("*/config.json"))


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """A model that was found.

    Attributes:
        name: The name that results record: the hub's id, or the name of a folder without its path, so that results do
            not depend on the machine.
        revision: The commit on the hub; None for all other models.
    """

    directory: Path
    name: str
    revision: str | None = None

    @cached_property
    def shape(self) -> EncoderShape:
        """The shape of the encoder.

        Raises:
            ModelFormatError: The model is not of the ESM family, or `config.json` is damaged.
        """
        return read_shape(self.directory)

    @cached_property
    def metadata(self) -> ModelMetadata:
        """What protembed knows about the model; the defaults for a model that protembed did not make.

        Raises:
            ModelFormatError: `protembed.json` is damaged, or does not fit `config.json`.
        """
        metadata = read_metadata(self.directory, self.shape.trained_window_residues)
        if (metadata.layer or 0) > self.shape.num_layers:
            found = f"protembed.json names layer {metadata.layer}, of {self.shape.num_layers}"
            raise ModelFormatError(self.directory, found, "the files do not belong together")
        longest = self.shape.max_residues
        if longest is not None and metadata.window_residues > longest:
            found = f"protembed.json names a window of {metadata.window_residues:,} residues"
            raise ModelFormatError(self.directory, found, f"the model has learned positions for {longest:,}")
        return metadata

    def sha256(self) -> str:
        """Hash the weight files; models with equal hashes are the same.

        Raises:
            ModelFormatError: A weight file is a link out of the directory, a folder, pipe or device.
        """
        return model_sha256(self.directory)


def locate_model(name: PathLike | None = None, *, offline: bool = False) -> ResolvedModel:
    """Find a model on disk, else among the bundled ones, else on the Hugging Face hub, which alone needs the network.

    Args:
        name: A model directory; a run directory, whose finished model is in `model/`; the name of a bundled model; a
            hub id such as `facebook/esm2_t12_35M_UR50D`, or the short name of a published model, such as
            `esm2_t12_35M` or `esmc_300m`, either with `@revision` if another than the usual one is meant. None is the
            default model.
        offline: Whether to look for models of the hub in its cache only.

    Raises:
        InputNotFoundError: There is no such model.
        HubError: The hub does not respond.
        ModelFormatError: The model is not of the ESM family, or has no safetensors.

    >>> locate_model("protembed_t6_8M").name
    'protembed_t6_8M'
    """
    if name is None:
        return ResolvedModel(directory=_BUNDLED / DEFAULT_MODEL, name=DEFAULT_MODEL)
    path = as_path("model", name)
    try:
        directory = _on_disk(path)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise InputNotFoundError(str(path), reason_of(error), _how_to_get()) from error
    directory = directory or next((bundled for bundled in bundled_models() if bundled.name == str(path)), None)
    if directory is not None:
        return ResolvedModel(directory=directory, name=path.resolve().name)
    hub_id = hub_name(name)
    if hub_id is None:
        found = "no such directory, no bundled model of that name, and no name of the Hugging Face hub"
        similar = similar_models(os.fspath(name))
        raise InputNotFoundError(str(path), found, f"name one of {', '.join(similar)}" if similar else _how_to_get())
    directory = fetch_model(hub_id, offline=offline)
    return ResolvedModel(directory=directory, name=hub_id.partition("@")[0], revision=directory.name)


def model_name(name: PathLike | None) -> str:
    """Format a model's name as new models record it, without looking for it; with the revision for one of the hub."""
    if name is None:
        return DEFAULT_MODEL
    return hub_name(name) or Path(name).resolve().name


def hub_name(name: PathLike | None) -> str | None:
    """Return a model's id on the hub, from its id or short name in any case; None for one on disk or bundled.

    The id ends with `@revision` if the user named one, or if one is pinned because the newest has no safetensors.

    Raises:
        ModelFormatError: It is the name of a well-known model that protembed does not read.
    """
    if name is None or os.path.lexists(name):
        return None
    name = os.fspath(name)
    base, at, revision = name.partition("@")
    if "/" in base and not is_hub_name(name):
        return None
    for model in PUBLISHED_MODELS:
        if model.is_called(base):
            return model.hub_id + at + revision if at else model.pinned_id
    check_name(name)
    return name if is_hub_name(name) else None


def _on_disk(name: Path) -> Path | None:
    """Find the model in a directory or a run; None if there is no such path."""
    for directory in (name, name / "model"):
        if (directory / "config.json").exists():
            return directory
    if (name / "run.json").exists():
        raise InputNotFoundError(str(name), "this run has no finished model yet", "repeat its command to resume it")
    if os.path.lexists(name):
        check_pickles(name)
    if name.is_dir():
        raise InputNotFoundError(str(name), "there is no config.json in it", _how_to_get())
    if os.path.lexists(name):
        raise InputNotFoundError(str(name), "this is not a directory", _how_to_get())
    return None


def _how_to_get() -> str:
    bundled = ", ".join(path.name for path in bundled_models())
    return (
        f"name a model directory, a run of `protembed pretrain`, a bundled model ({bundled}), "
        "or a model on the hub (esm2_t12_35M, esmc_300m, owner/model)"
    )


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model of the list of models.

    Attributes:
        name: The value for `--model`; for a model without safetensors, the directory to convert it to.
        hub_id: The repository on the hub; None for a bundled model.
        num_parameters: The number of parameters of the encoder and its masked-LM head.
        num_bytes: The size of the weights on disk or, for a published model, in float32.
        dim: The width of the vectors.
        float32_bytes: The memory for embedding: the weights and a batch of 1,024 tokens.
        bfloat16_bytes: The same with `--precision bfloat16`.
        window_residues: The residues of the longest crops that the model was trained on.
        has_learned_positions: Whether a window cannot be longer, because positions are learned.
        directory: The directory of a bundled model; None for a published one.
        best_at: What the model is for, in a few words.
        expectation: How good the model is, in a few words.
        perplexity: The published perplexity, as in `PublishedModel`.
        contact_precision: The published precision of contacts, as in `PublishedModel`.
        variant_spearman: The published correlation with effects of variants, as in `PublishedModel`.
        how_to_get: The option that selects the model, or the command that converts it; empty for a bundled model.
    """

    name: str
    hub_id: str | None = None
    num_parameters: int
    num_bytes: int
    num_layers: int
    dim: int
    float32_bytes: int
    bfloat16_bytes: int
    window_residues: int
    has_learned_positions: bool
    licence: str
    is_bundled: bool
    is_default: bool
    directory: Path | None = None
    best_at: str
    expectation: str
    perplexity: float | None = None
    contact_precision: float | None = None
    variant_spearman: float | None = None
    how_to_get: str = ""


def list_models() -> tuple[ModelEntry, ...]:
    """List the bundled models, then the published ones, from small to large in each family.

    Raises:
        ModelFormatError: A bundled model is damaged, so that protembed should be reinstalled.

    >>> [model.name for model in list_models()][:2]
    ['protembed_t6_8M', 'esm2_t6_8M']
    """
    return (*map(_bundled, bundled_models()), *map(_published, PUBLISHED_MODELS))


def _facts_of_shape(shape: EncoderShape) -> dict[str, Any]:
    return {
        "num_parameters": shape.num_parameters,
        "num_layers": shape.num_layers,
        "dim": shape.dim,
        "float32_bytes": embedding_bytes(shape),
        "bfloat16_bytes": embedding_bytes(shape, BYTES_PER_BFLOAT16),
        "has_learned_positions": shape.max_residues is not None,
    }


def _bundled(directory: Path) -> ModelEntry:
    found = ResolvedModel(directory=directory, name=directory.name)
    metrics = found.metadata.metrics
    return ModelEntry(
        name=directory.name,
        num_bytes=sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        window_residues=found.metadata.window_residues,
        licence="MIT",
        is_bundled=True,
        is_default=directory.name == DEFAULT_MODEL,
        directory=directory,
        best_at="trials without network",
        expectation=f"perplexity {metrics['valid_perplexity']:.1f} over 20 amino acids on proteins of other families, "
        f"where composition alone gives {metrics['unigram_perplexity']:.1f}",
        **_facts_of_shape(found.shape),
    )


def _published(model: PublishedModel) -> ModelEntry:
    return ModelEntry(
        name=model.name,
        hub_id=model.hub_id,
        num_bytes=BYTES_PER_NUMBER * model.shape.num_parameters,
        window_residues=model.shape.trained_window_residues,
        licence=model.licence,
        is_bundled=False,
        is_default=False,
        best_at=model.best_at,
        expectation=_expectation(model),
        perplexity=model.perplexity,
        contact_precision=model.contact_precision,
        variant_spearman=model.variant_spearman,
        how_to_get=model.how_to_get,
        **_facts_of_shape(model.shape),
    )


def _expectation(model: PublishedModel) -> str:
    """Describe the published metrics of a model in one clause."""
    metrics = []
    if model.perplexity is not None:
        metrics.append(f"perplexity {model.perplexity:.2f} over 33 tokens on UniRef50")
    if model.contact_precision is not None:
        metrics.append(f"{100 * model.contact_precision:.1f} % of the top L long-range contacts are true")
    if model.variant_spearman is not None:
        metrics.append(f"Spearman {model.variant_spearman:.2f} with the effects of variants in ProteinGym")
    return ", ".join(metrics) + " (published)" if metrics else "no metrics available"
