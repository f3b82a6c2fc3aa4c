"""Options of `protembed embed`, `protembed check` and `protembed join`. No torch."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from protembed.config.base import Config, Options, option
from protembed.config.common import (
    InferenceDeviceConfig,
    InputConfig,
    ModelConfig,
    model_region_option,
    precision_option,
    window_option,
)
from protembed.config.effects import Condition
from protembed.io.reading import STANDARD_STREAM

FormatName = Literal["npy", "npz", "tsv", "h5"]
EmbedPrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
H5Names = Literal["id", "hash"]
LongPolicy = Literal["window", "error", "truncate", "skip"]


def _is_h5(given: Mapping[str, Any]) -> bool:
    output, format = given["output"], given["format"]
    if output is not None and output != STANDARD_STREAM:
        return bool(output.suffix == ".h5")
    return format == "h5" or (format is None and bool(given["per_residue"]))


def report_option() -> Any:
    """Declare the option that asks for a page about the result."""
    return option(
        False,
        "Write a page beside the output, such as emb.report.html, with what to look at before the vectors are used: "
        "lengths, windows, norms, spread, repeated sequences and residues. A finished result is not computed again.",
        needs=[Condition("a command without `dry_run`", lambda given: not given.get("dry_run"))],
    )


class EmbedConfig(Config):
    """Embedding: what represents a protein, and where it is written."""

    output: Path | None = option(
        None,
        "Output file: .npy, .npz, .tsv or .h5; with --per-residue .h5 or .npz; - is stdout. Default: the name of the "
        "first FASTA file with .npy or .h5.",
        short="-o",
    )
    pooling: str = option(
        "auto",
        "How residue vectors become one: mean, max, std, cls, or several concatenated (mean,std); auto: as the model "
        "was trained, else mean.",
    )
    layer: str = option(
        "auto",
        "Layers to use: a number (0 = input embedding), last, all, a list such as 0,3-6, or auto (recorded in the "
        "model).",
    )
    per_residue: bool = option(False, "One vector per residue instead of one per protein.")
    region: str = model_region_option()
    long_proteins: LongPolicy = option(
        "window",
        "What to do about a protein longer than the window. window: merge overlapping windows; error: stop; truncate: "
        "cut it off; skip: leave it out and list it.",
    )
    window_residues: int | None = window_option()
    precision: EmbedPrecisionName = precision_option()
    store_dtype: Literal["float32", "float16"] = option("float32", "Precision of the stored numbers.")
    format: FormatName | None = option(
        None, "Format of stdout, of the default output file, and of a file whose suffix names none, such as .dat."
    )
    h5_names: H5Names = option(
        "id",
        "Names of the datasets in .h5: identifiers (a hash of the sequence where an identifier is not unique or has a "
        "slash), or always the hash, as biotrainer expects.",
        needs=[Condition("an output in .h5", _is_h5)],
        advanced=True,
    )
    shard: str | None = option(
        None, "Embed only part I of N, such as 2/8: consecutive proteins, about the same number of residues each."
    )
    report: bool = report_option()
    dry_run: bool = option(False, "Print the estimated time, memory and disk space, and exit.")
    force: bool = option(False, "Replace an existing result, or an unfinished one of a different command.")


class CheckConfig(Config):
    """Check: the sample of vectors that is computed again."""

    sample_size: int = option(20, "Number of proteins that are computed again, drawn at random.", min=0)
    seed: int = option(0, "Seed of the sample.", min=0)


class JoinConfig(Config):
    """Join: where the one result is written."""

    output: Path | None = option(
        None,
        "Output file: .npy, .npz, .tsv or .h5, whatever the formats of the results; - is stdout. Default: the name of "
        "the first shard without its number, or joined.npy.",
        short="-o",
    )
    format: FormatName | None = option(
        None, "Format of stdout, of the default output file, and of a file whose suffix names none, such as .dat."
    )
    report: bool = report_option()
    force: bool = option(False, "Replace an existing result of a different command.")


class EmbedOptions(Options):
    """All options of `protembed embed`."""

    command = "embed"
    model: ModelConfig = field(default_factory=ModelConfig)
    embedding: EmbedConfig = field(default_factory=EmbedConfig)
    reader: InputConfig = field(default_factory=InputConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)


class CheckOptions(Options):
    """All options of `protembed check`."""

    command = "check"
    model: ModelConfig = field(default_factory=ModelConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    compute: InferenceDeviceConfig = field(default_factory=InferenceDeviceConfig)


class JoinOptions(Options):
    """All options of `protembed join`."""

    command = "join"
    join: JoinConfig = field(default_factory=JoinConfig)
