"""The models that can be named: on disk, bundled, or on the Hugging Face hub."""

import os
from dataclasses import dataclass
from pathlib import Path

from protembed.config.common import DEFAULT_MODEL
from protembed.config.model_sizes import SIZES, EncoderShape, SizeName
from protembed.errors import InputNotFoundError
from protembed.model.esm_config import read_shape
from protembed.model.hub import fetch_model, is_hub_name
from protembed.model.metadata import read_metadata

_BUNDLED = Path(__file__).parent.parent / "bundled"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """An ESM-2 model on the Hugging Face hub.

    Attributes:
        size: its row in the table of shapes.
        perplexity: on 10,000 test proteins of UniRef50, 15 % masked, over all 33 tokens; None if no figure is at hand.
        contact_precision: of the L best long-range contacts of a protein of L residues, as a share; None likewise.
        has_safetensors: whether it was published in files that protembed reads, as far as is known.

    Source: perplexity: Synthyra's evaluation; contacts: the README of facebookresearch/esm, large validation set.
    """

    size: SizeName
    perplexity: float | None = None
    contact_precision: float | None = None
    has_safetensors: bool = True

    @property
    def name(self) -> str:
        """The short name, such as `esm2_t12_35M`."""
        return f"esm2_{self.size}"

    @property
    def hub_id(self) -> str:
        """The repository on the hub, such as `facebook/esm2_t12_35M_UR50D`."""
        return f"facebook/{self.name}_UR50D"

    @property
    def shape(self) -> EncoderShape:
        """Layers, width and heads."""
        return SIZES[self.size]

    @property
    def how_to_get(self) -> str:
        """How it is named on the command line, or what makes a directory of it that can be named."""
        if not self.has_safetensors:
            # Pickled weights can run code when they are read: whoever wants them reads them with transformers.
            convert = f"EsmForMaskedLM.from_pretrained('{self.hub_id}').save_pretrained('{self.name}')"
            return f'python -c "from transformers import EsmForMaskedLM; {convert}"'
        return f"--model {self.name}"


PUBLISHED_MODELS = (
    PublishedModel(size="t6_8M", perplexity=13.16, contact_precision=0.159),
    PublishedModel(size="t12_35M", perplexity=11.65, contact_precision=0.288),
    PublishedModel(size="t30_150M", perplexity=10.26, contact_precision=0.422),
    PublishedModel(size="t33_650M", perplexity=8.72, contact_precision=0.501),
    PublishedModel(size="t36_3B", has_safetensors=False),
    PublishedModel(size="t48_15B", has_safetensors=False),
)


def bundled_models() -> list[Path]:
    """List the directories of the models that come with protembed, in the order of their names."""
    return sorted(path.parent for path in _BUNDLED.glob("*/config.json"))


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """A model that was found.

    Attributes:
        directory: with `config.json`.
        name: as results record it: a folder's own name, not its path, which tells where it was made; or the hub's id.
        revision: the commit on the hub; None for a model from elsewhere.
    """

    directory: Path
    name: str
    revision: str | None = None


def find_model(name: Path | None) -> Path:
    """Find the directory of a model; see `locate_model`."""
    return locate_model(name).directory


def locate_model(name: Path | None, *, offline: bool = False) -> ResolvedModel:
    """Find a model: on disk, else in the box, else on the Hugging Face hub, which alone needs the network.

    Args:
        name: a model directory; a run directory, whose finished model is in `model/`; the name of a bundled model; a
            hub id such as `facebook/esm2_t12_35M_UR50D`, with `@revision` if need be; or the short name of a published
            ESM-2 model, such as `esm2_t12_35M`. None is the default model, wherever the command runs.
        offline: use of the hub only what is in its cache.

    Raises:
        InputNotFoundError: no such model is there.
        HubError: the hub does not answer.
        ModelFormatError: the hub's model is no ESM-2, or has no safetensors.
    """
    if name is None:
        return ResolvedModel(directory=_BUNDLED / DEFAULT_MODEL, name=DEFAULT_MODEL)
    try:
        directory = _on_disk(name)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise InputNotFoundError(str(name), error.strerror or str(error), _how_to_get()) from error
    bundled = {path.name: path for path in bundled_models()}
    directory = directory or bundled.get(str(name))
    if directory is not None:
        return ResolvedModel(directory=directory, name=name.resolve().name)
    named = _hub_name(str(name))
    if named is None:
        found = "no such directory, no bundled model of that name, and no name of the Hugging Face hub"
        raise InputNotFoundError(str(name), found, _how_to_get())
    model = fetch_model(named, offline=offline)
    return ResolvedModel(directory=model.directory, name=named.partition("@")[0], revision=model.revision)


def model_name(name: Path | None) -> str:
    """Spell a model's name as a new model records it, without looking for it; of the hub's, the revision asked for."""
    if name is None:
        return DEFAULT_MODEL
    return hub_name(name) or name.resolve().name


def hub_name(name: Path | None) -> str | None:
    """Spell a model's name as the hub knows it; None for one that is on disk or in the box."""
    if name is None or os.path.lexists(name):
        return None
    return _hub_name(str(name))


def _hub_name(name: str) -> str | None:
    """Spell a name as the hub knows it; published models go by their short names too, in capitals or not."""
    base, at, revision = name.partition("@")
    if "/" in base and not is_hub_name(name):
        return None
    for model in PUBLISHED_MODELS:
        if base.lower().removeprefix("facebook/").removesuffix("_ur50d") == model.name.lower():
            return model.hub_id + at + revision
    return name if is_hub_name(name) else None


def _on_disk(name: Path) -> Path | None:
    """Find the model in a directory or a run; None if nothing of that name is there."""
    for directory in (name, name / "model"):
        if (directory / "config.json").exists():
            return directory
    if (name / "run.json").exists():
        raise InputNotFoundError(str(name), "this run has no finished model yet", "repeat its command to resume it")
    if name.is_dir():
        raise InputNotFoundError(str(name), "there is no config.json in it", _how_to_get())
    if os.path.lexists(name):
        raise InputNotFoundError(str(name), "this is no directory", _how_to_get())
    return None


def _how_to_get() -> str:
    bundled = ", ".join(path.name for path in bundled_models())
    return (
        "pass --model with a model directory, the run of `protembed pretrain`, a bundled name "
        f"({bundled}), or one of the hub (esm2_t12_35M, owner/model)"
    )


_BYTES_PER_NUMBER = 4


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
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

    models: tuple[ModelEntry, ...]


def list_models() -> ModelList:
    """List the models that can be named.

    Raises:
        ModelFormatError: a bundled model is damaged: protembed should be installed anew.
    """
    return ModelList(models=(*map(_bundled, bundled_models()), *map(_published, PUBLISHED_MODELS)))


def _bundled(directory: Path) -> ModelEntry:
    shape, metrics = read_shape(directory), read_metadata(directory).metrics
    return ModelEntry(
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


def _published(model: PublishedModel) -> ModelEntry:
    figures = "no figures at hand"
    if model.perplexity is not None and model.contact_precision is not None:
        figures = f"perplexity {model.perplexity:.2f} over 33 tokens on UniRef50, "
        figures += f"{100 * model.contact_precision:.1f} % of the top L long-range contacts are true (published)"
    return ModelEntry(
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
