"""A finished result of `embed` on disk, whose files match its meta file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.embedding.formats import StoredVectors
from protembed.embedding.metadata import IDS, read_ids_lines
from protembed.errors import VerificationError, reason_of
from protembed.io.reading import sha256_of_file
from protembed.io.result import sidecar


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """A result on disk and its meta file, which are compared when it is created.

    Raises:
        VerificationError: The files do not match the hashes and counts in the meta file, or cannot be read.
    """

    path: Path
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        if sha256_of_file(self.path) != self.meta["sha256"]:
            raise VerificationError(self.path, "its hash differs from the one in its meta file")
        ids = sidecar(self.path, IDS)
        if not ids.exists() or sha256_of_file(ids) != self.meta["ids_sha256"]:
            found = f"{ids.name} is missing, or its hash differs from the one in the meta file"
            raise VerificationError(self.path, found)
        try:
            num_stored = self.vectors.count()
        except (OSError, ValueError, KeyError) as error:
            raise VerificationError(self.path, f"it cannot be read ({reason_of(error)})") from error
        if num_stored != self.num_proteins:
            raise VerificationError(
                self.path, f"it contains {num_stored:,} proteins, but its meta file records {self.num_proteins:,}"
            )

    @property
    def num_proteins(self) -> int:
        """Number of its proteins."""
        return int(self.meta["num_proteins"])

    @property
    def first_row(self) -> int:
        """Number of the first row: 1, or 0 in results of earlier versions."""
        return 0 if next(read_ids_lines(self.path), "").startswith("0\t") else 1

    @property
    def vectors(self) -> StoredVectors:
        """Its vectors, which stay on disk."""
        return StoredVectors(self.path, self.meta["format"], self.meta["per_residue"])
