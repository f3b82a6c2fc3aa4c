"""What an inspection of attention is run on. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from protembed.config.inspect_attention import AttentionOptions
from protembed.model.catalog import ResolvedModel
from protembed.text import format_share, pluralize


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

    @property
    def recorded_precision(self) -> str | None:
        """What the model's metadata say of the precision of its contact head, as a clause; None if nothing."""
        measured = self.model.metadata.metrics.get("contacts")
        if measured is None:
            return None
        structures = pluralize(measured["num_structures"], "structure")
        return (
            f"in {structures}, each predicted by a fit to others, {format_share(measured['precision'])} of the "
            "likeliest pairs, as many as residues and far apart along the chain, were in contact (random pairs: "
            f"{format_share(measured['random'])})"
        )

    def warnings(self) -> Iterator[str]:
        """Warn of predicted contacts of a model that the user did not name, with their recorded precision."""
        config = self.options.attention
        is_asked = self.options.model.model is not None or config.structures
        if self.recorded_precision is not None and config.save_maps and not is_asked:
            yield (
                f"the contacts that the bundled model predicts are rough: {self.recorded_precision}; name another "
                "model, such as --model esm2_t33_650M"
            )
