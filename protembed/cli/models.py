"""`protembed models`."""

from protembed.cli.display import Display
from protembed.cli.messages import MODELS_ADVICE, model_lines
from protembed.cli.options import configured


@configured
def models(display: Display) -> None:
    """List the models that --model takes by name: bundled ones, and those of the ESM family on the hub.

    Examples:
        protembed models
        protembed models --json
    """
    from protembed.model.catalog import list_models

    listing = list_models()
    if not display.is_json:
        display.print_data(model_lines(listing, display.data_width))
    display.summary({"models": listing}, MODELS_ADVICE)
