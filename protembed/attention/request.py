"""What an inspection of attention is run on. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protembed.config.inspect_attention import AttentionOptions
from protembed.model.catalog import ResolvedModel


@dataclass(frozen=True, kw_only=True)
class InspectionRequest:
    """An inspection to run, and how the page names what it is run on.

    Attributes:
        fasta: FASTA files that can be read twice.
        options: Options with files that can be read twice.
        command: Command line as given, without folders.
        file_names: Names of the FASTA files as given, without folders.
    """

    model: ResolvedModel
    fasta: Sequence[Path]
    options: AttentionOptions
    command: str
    file_names: Sequence[str]
