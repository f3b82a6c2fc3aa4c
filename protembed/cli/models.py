"""`protembed models`."""

from protembed.cli.display import Display
from protembed.cli.messages import MODELS_ADVICE, model_lines, recommendation_advice, recommendation_lines
from protembed.cli.options import configured
from protembed.config.models import ListingOptions


@configured
def models(options: ListingOptions, display: Display) -> None:
    """List the models that --model takes by name: bundled ones, and those of the ESM family on the hub.

    Examples:
        protembed models
        protembed models --recommend
        protembed models --json
    """
    if options.listing.recommend:
        from protembed.embedding.recommendation import recommend_models

        found = recommend_models()
        if not display.is_json:
            display.print_data(recommendation_lines(found, display.data_width))
        display.summary(found, recommendation_advice(found))
        return
    from protembed.model.catalog import list_models

    listing = list_models()
    if not display.is_json:
        display.print_data(model_lines(listing, display.data_width))
    display.summary({"models": listing}, MODELS_ADVICE)
