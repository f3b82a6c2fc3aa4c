"""Options of `protembed map`. No torch."""

from dataclasses import field
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import DeviceConfig
from protembed.config.effects import only_with

ProjectionName = Literal["pca", "tsne", "umap"]
# With more proteins t-SNE takes many minutes.
MAX_TSNE_PROTEINS = 10_000
MIN_PERPLEXITY = 5


class MapConfig(Config):
    """Map: how vectors become points, what colours them, and where they are written."""

    output: Path | None = option(
        None,
        "Directory for the page, the points and the picture. Default: the name of the input with .map.",
        short="-o",
    )
    projection: Literal["auto", "pca", "tsne", "umap"] = option(
        "auto",
        "How vectors become points, beside PCA, which the page always has: tsne (t-SNE), umap (UMAP, with the package "
        "umap-learn) or nothing more (pca). auto: t-SNE for up to "
        f"{MAX_TSNE_PROTEINS:,} proteins; UMAP for more, if it is installed.",
    )
    labels: Path | None = option(
        None,
        "Table (CSV, TSV, Excel) with a column of identifiers, whose other columns can colour the points.",
        reads="table",
    )
    id: str | None = option(
        None, "Column of --labels with the identifiers. Default: id, protein, accession or similar."
    )
    colour: str | None = option(
        None, "Column of --labels that colours the points at first. Default: the first with classes or values."
    )
    sequences: Path | None = option(
        None,
        "FASTA with the sequences of the proteins, so that those that are chosen on the page can be saved as FASTA.",
        reads="fasta",
    )
    perplexity: int = option(
        30,
        "Number of neighbours that t-SNE tries to keep near each point (UMAP: half as many).",
        min=MIN_PERPLEXITY,
        max=1000,
        advanced=True,
    )
    seed: int = option(
        0,
        "Seed of the random numbers of UMAP; t-SNE begins with the principal components, and draws none.",
        min=0,
        needs=[only_with("projection", "umap", "auto")],
        advanced=True,
    )
    force: bool = option(False, "Replace an existing map.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is None:
            self._check_absent("id", "colour", expected="it is a column of `labels`, which is not given")


class MapOptions(Options):
    """All options of `protembed map`."""

    command = "map"
    map: MapConfig = field(default_factory=MapConfig)
    compute: DeviceConfig = field(default_factory=DeviceConfig)
