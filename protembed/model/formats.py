"""The formats of the architectures that protembed reads and writes, by `model_type` or by shape. No torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from protembed.config.model_sizes import EncoderShape
from protembed.errors import ModelFormatError
from protembed.model.esm2_format import ESM2_FORMAT
from protembed.model.esmc_format import ESMC_FORMAT
from protembed.model.hf_format import CONFIG_FILE, ModelFormat
from protembed.model.unsupported import check_config
from protembed.model.untrusted import read_model_json

FORMATS = (ESM2_FORMAT, ESMC_FORMAT)
READ_MODELS = "protembed reads ESM-2, ESM-1b, ESM-1v and ESM-C models in Hugging Face layout"


def format_of(shape: EncoderShape) -> ModelFormat:
    """Return the format in which models of a shape are stored, with the name of the member of the family."""
    known = next(known for known in FORMATS if known.shape_type is type(shape))
    return replace(known, name=known.name_of(shape))


def name_of(shape: EncoderShape) -> str:
    """Name the member of the family that a shape belongs to, such as ESM-1b."""
    return format_of(shape).name


def config_json(shape: EncoderShape, *, has_lm_head: bool = True) -> dict[str, Any]:
    """Make the content of `config.json`, with every field that matters to transformers written out."""
    return format_of(shape).config_json(shape, has_lm_head=has_lm_head)


def read_shape(directory: Path) -> EncoderShape:
    """Read the shape of a model, whose type is the architecture.

    Raises:
        ModelFormatError: The config describes a model that protembed does not read, is damaged, or missing.
    """
    config = read_model_json(directory / CONFIG_FILE)
    check_config(directory, config)
    model_type = config.get("model_type")
    for known in FORMATS:
        if model_type == known.model_type:
            return known.read_shape(directory, config)
    raise ModelFormatError(directory, f"this is a model of type {model_type!r:.80}", READ_MODELS)
