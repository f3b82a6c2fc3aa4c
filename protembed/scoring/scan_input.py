"""The files that a scan reads. No torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """The files of a scan, which can be read twice, and how the page names them.

    Attributes:
        measurements: Table of measured variants; None without one.
        structure: PDB or mmCIF file; None without one.
        command: Command line as given, without folders.
        fasta_name: Name of the FASTA file as given, without folders.
        precision: Name of the precision of the matrix products.
    """

    fasta: Path
    measurements: Path | None
    structure: Path | None
    command: str
    fasta_name: str
    precision: str
