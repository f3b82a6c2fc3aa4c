"""Which models there are: those that come with protembed, and those that it knows from the hub."""

from dataclasses import dataclass
from pathlib import Path

from protembed.config.common import DEFAULT_MODEL
from protembed.model.catalog import PUBLISHED_MODELS, PublishedModel, bundled_models
from protembed.model.esm_config import read_shape
from protembed.model.record import read_record

_BYTES_PER_NUMBER = 4


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """A model that can be named.

    Attributes:
        name: what `--model` takes; of one without safetensors, once it was converted.
        num_parameters: of the encoder and its masked-LM head.
        num_bytes: of its weights on disk; of a published one in float32, about.
        num_layers: of the encoder.
        dim: numbers of a protein's vector.
        is_bundled: whether it comes with protembed.
        is_default: whether it is taken where no model is named.
        directory: of a bundled one, for transformers and others; None otherwise.
        expectation: how good it is, in a few words.
        how_to_get: how to name it, or what to do before that; empty for a bundled one.
    """

    name: str
    num_parameters: int
    num_bytes: int
    num_layers: int
    dim: int
    is_bundled: bool
    is_default: bool
    directory: Path | None
    expectation: str
    how_to_get: str


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """The bundled models, and then the published ones from small to large."""

    models: tuple[ListedModel, ...]


def list_models() -> ModelList:
    """List the models that can be named.

    Raises:
        ModelFormatError: a bundled model is damaged: protembed should be installed anew.
    """
    return ModelList(models=(*map(_bundled, bundled_models()), *map(_published, PUBLISHED_MODELS)))


def _bundled(directory: Path) -> ListedModel:
    shape, metrics = read_shape(directory), read_record(directory).metrics
    return ListedModel(
        name=directory.name,
        num_parameters=shape.num_parameters,
        num_bytes=sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        num_layers=shape.num_layers,
        dim=shape.dim,
        is_bundled=True,
        is_default=directory.name == DEFAULT_MODEL,
        directory=directory,
        expectation=f"perplexity {metrics['valid_perplexity']:.1f} over 20 amino acids on proteins of other families, "
        f"where composition alone gives {metrics['unigram_perplexity']:.1f}",
        how_to_get="",
    )


def _published(model: PublishedModel) -> ListedModel:
    figures = "no figures at hand"
    if model.perplexity is not None and model.contact_precision is not None:
        figures = f"perplexity {model.perplexity:.2f} over 33 tokens on UniRef50, "
        figures += f"{100 * model.contact_precision:.1f} % of the top L long-range contacts are true (published)"
    return ListedModel(
        name=model.name,
        num_parameters=model.shape.num_parameters,
        num_bytes=_BYTES_PER_NUMBER * model.shape.num_parameters,
        num_layers=model.shape.num_layers,
        dim=model.shape.dim,
        is_bundled=False,
        is_default=False,
        directory=None,
        expectation=figures,
        how_to_get=model.how_to_get,
    )
