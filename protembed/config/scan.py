"""Options of a scan of all single mutants. No torch."""

from pathlib import Path

from protembed.config.base import Config, option
from protembed.config.common import Region, region_option


class ScanConfig(Config):
    """Scan: all single mutants of each protein, with a page."""

    scan: bool = option(
        False,
        "Score all 19 substitutions of every position of each protein of a FASTA file, and write a directory with the "
        "table, the matrix, figures and a page with heat maps.",
    )
    region: str | None = region_option(
        None,
        "Scan only these residues of each protein, such as 20-80, numbered from 1 (also -80 and 20-). The model still "
        "reads the whole protein.",
    )
    measurements: Path | None = option(
        None,
        "Table of measured variants, such as a deep mutational scan, to show beside the scan: CSV or TSV with "
        "mutations and values, of which --measured-column, --mutations, --id and --position-offset say more. Variants "
        "with several mutations are left out.",
        reads="table",
    )
    structure: Path | None = option(
        None,
        "PDB or mmCIF file whose B factors are set to the mean score of each position, in every chain that matches a "
        "protein; PyMOL and ChimeraX colour by it.",
        reads="structures",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scan:
            self._check_absent("region", "measurements", "structure", expected="it is an option of a scan: add `scan`")

    @property
    def range(self) -> Region:
        """Residues that are scanned; all without `region`."""
        return Region(1, None) if self.region is None else Region.parse(self.region)
