"""The table of clusters, by accession."""

import csv
import io
from pathlib import Path

from protembed.io.reading import open_input


def read_clusters(path: Path) -> dict[str, dict[str, str]]:
    """Read a TSV with a header line and a column `accession`, plain or compressed; return its rows by accession."""
    with open_input(path) as stream:
        rows = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8"), delimiter="\t")
        return {row["accession"]: row for row in rows}
