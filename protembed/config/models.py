"""Options of `protembed models`. No torch."""

from dataclasses import field

from protembed.config.base import Config, Options, option


class ListingConfig(Config):
    """Listing: which models are listed."""

    recommend: bool = option(
        False,
        "List one model for each purpose instead: the best published one that this computer holds in memory, and with "
        "which it embeds 1,000 proteins within an hour.",
    )


class ListingOptions(Options):
    """All options of `protembed models`."""

    command = "models"
    listing: ListingConfig = field(default_factory=ListingConfig)
