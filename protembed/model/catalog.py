"""Models by name: on disk, bundled, or on the Hugging Face hub; what their descriptions say. No torch."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from protembed.config.common import DEFAULT_MODEL
from protembed.config.model_sizes import BYTES_PER_NUMBER, SIZES, EncoderShape, SizeName
from protembed.errors import InputNotFoundError, ModelFormatError, reason_of
from protembed.io.reading import PathLike, as_path
from protembed.model.formats import read_shape
from protembed.model.hub import conversion_command, fetch_model, is_hub_name
from protembed.model.metadata import ModelMetadata, read_metadata
from protembed.model.untrusted import model_sha256

_BUNDLED = Path(__file__).parent.parent / "bundled"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """An ESM-2 model on the Hugging Face hub.

    Attributes:
        perplexity: The perplexity on 10,000 test proteins of UniRef50, 15 % masked, over all 33 tokens; None where
            unknown.
        contact_precision: The precision of the top L long-range contacts of a protein of L residues, as a fraction;
            None where unknown.
        has_safetensors: Whether the model was published as safetensors, as far as is known.

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
    def how_to_get(self) -> str:
        """The option that selects the model, or the command that converts it to a directory."""
        return f"--model {self.name}" if self.has_safetensors else conversion_command(self.hub_id, self.name)


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
            ModelFormatError: The model is not an ESM-2, or `config.json` is damaged.
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
            hub id such as `facebook/esm2_t12_35M_UR50D`, optionally with `@revision`; or the short name of a published
            ESM-2 model, such as `esm2_t12_35M`. None is the default model.
        offline: Whether to look for models of the hub in its cache only.

    Raises:
        InputNotFoundError: There is no such model.
        HubError: The hub does not respond.
        ModelFormatError: The hub's model is not an ESM-2, or has no safetensors.

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
        raise InputNotFoundError(str(path), found, _how_to_get())
    directory = fetch_model(hub_id, offline=offline)
    return ResolvedModel(directory=directory, name=hub_id.partition("@")[0], revision=directory.name)


def model_name(name: PathLike | None) -> str:
    """Format a model's name as new models record it, without looking for it; with the revision for one of the hub."""
    if name is None:
        return DEFAULT_MODEL
    return hub_name(name) or Path(name).resolve().name


def hub_name(name: PathLike | None) -> str | None:
    """Return a model's id on the hub, from its id or short name in any case; None for one on disk or bundled."""
    if name is None or os.path.lexists(name):
        return None
    name = os.fspath(name)
    base, at, revision = name.partition("@")
    if "/" in base and not is_hub_name(name):
        return None
    for model in PUBLISHED_MODELS:
        if base.lower().removeprefix("facebook/").removesuffix("_ur50d") == model.name.lower():
            return model.hub_id + at + revision
    return name if is_hub_name(name) else None


def _on_disk(name: Path) -> Path | None:
    """Find the model in a directory or a run; None if there is no such path."""
    for directory in (name, name / "model"):
        if (directory / "config.json").exists():
            return directory
    if (name / "run.json").exists():
        raise InputNotFoundError(str(name), "this run has no finished model yet", "repeat its command to resume it")
    if name.is_dir():
        raise InputNotFoundError(str(name), "there is no config.json in it", _how_to_get())
    if os.path.lexists(name):
        raise InputNotFoundError(str(name), "this is not a directory", _how_to_get())
    return None


def _how_to_get() -> str:
    bundled = ", ".join(path.name for path in bundled_models())
    return (
        f"name a model directory, a run of `protembed pretrain`, a bundled model ({bundled}), "
        "or a model on the hub (esm2_t12_35M, owner/model)"
    )


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model of the list of models.

    Attributes:
        name: The value for `--model`; for a model without safetensors, the directory to convert it to.
        num_parameters: The number of parameters of the encoder and its masked-LM head.
        num_bytes: The size of the weights on disk; approximate for a published model.
        directory: The directory of a bundled model; None for a published one.
        expectation: How good the model is, in a few words.
        how_to_get: The option that selects the model, or the command that converts it; empty for a bundled model.
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


def list_models() -> tuple[ModelEntry, ...]:
    """List the bundled models, then the published ones from small to large.

    Raises:
        ModelFormatError: A bundled model is damaged, so that protembed should be reinstalled.

    >>> [model.name for model in list_models()][:2]
    ['protembed_t6_8M', 'esm2_t6_8M']
    """
    return (*map(_bundled, bundled_models()), *map(_published, PUBLISHED_MODELS))


def _entry(
    name: str,
    shape: EncoderShape,
    num_bytes: int,
    expectation: str,
    *,
    directory: Path | None = None,
    how_to_get: str = "",
) -> ModelEntry:
    return ModelEntry(
        name=name,
        num_parameters=shape.num_parameters,
        num_bytes=num_bytes,
        num_layers=shape.num_layers,
        dim=shape.dim,
        is_bundled=directory is not None,
        is_default=name == DEFAULT_MODEL,
        directory=directory,
        expectation=expectation,
        how_to_get=how_to_get,
    )


def _bundled(directory: Path) -> ModelEntry:
    metrics = read_metadata(directory).metrics
    num_bytes = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    expectation = (
        f"perplexity {metrics['valid_perplexity']:.1f} over 20 amino acids on proteins of other families, "
        f"where composition alone gives {metrics['unigram_perplexity']:.1f}"
    )
    return _entry(directory.name, read_shape(directory), num_bytes, expectation, directory=directory)


def _published(model: PublishedModel) -> ModelEntry:
    expectation = "no metrics available"
    if model.perplexity is not None and model.contact_precision is not None:
        expectation = f"perplexity {model.perplexity:.2f} over 33 tokens on UniRef50, "
        expectation += f"{100 * model.contact_precision:.1f} % of the top L long-range contacts are true (published)"
    shape = SIZES[model.size]
    num_bytes = BYTES_PER_NUMBER * shape.num_parameters
    return _entry(model.name, shape, num_bytes, expectation, how_to_get=model.how_to_get)
