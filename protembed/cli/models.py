"""`protembed models`."""

from typing import TYPE_CHECKING

from protembed.cli.display import Display
from protembed.cli.options import configured
from protembed.config.common import ShowConfig
from protembed.io.text import file_size

if TYPE_CHECKING:
    from protembed.model.catalog import ListedModel


@configured
def models(show: ShowConfig) -> None:
    """List the models that can be named: those in the box, and ESM-2 models that can be fetched."""
    from protembed.model.catalog import list_models

    listing = list_models()
    if not show.json:
        for model in listing.models:
            print(model_lines(model))
    Display(show).summary(
        listing,
        "perplexities compare only on the same proteins and classes: not the box's with the published ones",
        "for better vectors name an ESM-2 model, which is fetched once: --model esm2_t12_35M",
    )


def model_lines(model: "ListedModel") -> str:
    """Say in three lines what a model is, what to expect of it, and how to get it."""
    millions = model.num_parameters / 1e6
    number = f"{millions / 1e3:.1f} B" if millions >= 1e3 else f"{millions:.1f} M"
    size = f"{number} parameters, {file_size(model.num_bytes)}, {model.num_layers} layers of width {model.dim:,}"
    place = "in the box, the default" if model.is_default else "in the box" if model.is_bundled else model.how_to_get
    return f"{model.name:<16}  {size}\n    {model.expectation}\n    {place}"
