"""Options of `protembed search`. No torch."""

from dataclasses import field
from pathlib import Path
from typing import Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import InferenceDeviceConfig, InputConfig, LabelKind, ModelConfig
from protembed.config.effects import Condition, only_with_any
from protembed.errors import ConfigError

MetricName = Literal["cosine", "euclidean"]


class SearchConfig(Config):
    """Search: what a neighbour is, and where the table is written."""

    output: Path | None = option(
        None,
        "Output table, CSV if its name ends in .csv, else TSV; - is stdout. Default: the name of the queries with "
        ".hits.tsv, or .labels.tsv with --transfer.",
        short="-o",
    )
    num_neighbours: int = option(10, "Neighbours of each query.", short="-k", min=1)
    min_cosine: float | None = option(
        None,
        "Report only hits with at least this cosine.",
        min=-1.0,
        max=1.0,
        needs=[Condition("a command without `transfer`", lambda given: not given.get("transfer"))],
    )
    metric: MetricName = option(
        "cosine", "What makes a protein near: cosine (a large cosine) or euclidean (a small distance)."
    )
    centre: bool = option(
        False,
        "Subtract the mean of the database from all vectors first. All vectors have a part in common, which raises "
        "every cosine; without it, more of the nearest proteins are relatives.",
    )
    sequences: list[Path] = option(
        [],
        "FASTA file with the sequences of a side that is a result of embed, for the column kmer_similarity; may be "
        "repeated. Sequences are matched by their hashes.",
        reads="fasta",
    )
    approximate: bool = option(
        False,
        "Compare each query with a part of the database alone, for millions of proteins. The command measures which "
        "share of the exact neighbours it finds for a sample of the queries, and prints it. Needs the extra "
        "approximate (faiss-cpu), and the database in memory.",
    )
    force: bool = option(False, "Replace an existing table.")


class LabelsConfig(Config):
    """Labels: what is known about the proteins of the database."""

    labels: Path | None = option(
        None,
        "Table (CSV, TSV, Excel) with the labels of proteins of the database, named by their identifiers, or else by "
        "their sequences. Adds the column target_label.",
        reads="table",
    )
    label_column: str | None = option(
        None, "Column with the labels. Default: target or label.", needs=[only_with_any("labels")]
    )
    id: str | None = option(
        None,
        "Column with the identifiers. Default: id, accession, protein_id, entry, name or similar.",
        needs=[only_with_any("labels")],
    )
    transfer: bool = option(
        False,
        "Write a row for each query instead, with the label that its neighbours have and how reliable it is, and the "
        "label of the nearest protein by k-mers. Reliability is calibrated on the database: each labelled protein gets "
        "the label of others, with all similar sequences left out. Needs the sequences of the database.",
        needs=[only_with_any("labels")],
    )
    label_kind: LabelKind | None = option(
        None,
        "What a label is: one class, several labels separated by semicolons, or a value. Default: values if all labels "
        "are numbers, and over 20 differ or some have a fraction; labels if one has a semicolon; else class.",
        needs=[only_with_any("transfer")],
        advanced=True,
    )
    cluster_identity: float = option(
        0.5,
        "Proteins at least this similar (shared 5-mers) are left out together in the calibration.",
        min=0.2,
        max=1.0,
        needs=[only_with_any("transfer")],
        advanced=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer and self.labels is None:
            raise ConfigError("transfer", True, "it needs a table: give `labels` too")


class SearchOptions(Options):
    """All options of `protembed search`."""

    command = "search"
    model: ModelConfig = field(default_factory=ModelConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)
