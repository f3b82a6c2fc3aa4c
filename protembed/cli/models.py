"""`protembed models`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protembed.cli.display import Display
from protembed.cli.messages import model_lines
from protembed.cli.options import configured
from protembed.config.common import ConsoleConfig

if TYPE_CHECKING:
    from protembed.model.catalog import ModelEntry


@dataclass(frozen=True)
class ModelList:
    """The models as one object, which --json prints."""

    models: tuple["ModelEntry", ...]


@configured
def models(show: ConsoleConfig) -> None:
    """List the models that --model takes by name: bundled ones, and ESM-2 models that can be downloaded."""
    from protembed.model.catalog import list_models

    listing = list_models()
    if not show.json:
        for model in listing:
            print(model_lines(model))
    Display(show).summary(
        ModelList(listing),
        "perplexities are comparable only on the same proteins and classes: not those of bundled and published models",
        "for better vectors use an ESM-2 model, which is downloaded once: --model esm2_t12_35M",
    )
