"""A finished result of `embed` on disk, or one of its shards."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protembed.config.common import choose_region
from protembed.embedding.metadata import IDS, read_ids_lines, read_meta
from protembed.embedding.selection import Selection, Shard
from protembed.embedding.stored_vectors import StoredVectors
from protembed.errors import VerificationError
from protembed.io.reading import sha256_of_file
from protembed.io.result import META, sidecar
from protembed.text import reason_of


def is_result(path: Path) -> bool:
    """Return whether a path is that of a result of `embed`, and not of FASTA: by its suffix, or by its meta file."""
    # Unlike methods of Path, these functions raise no error about a loop of links or a name that is too long.
    return path.suffix in (".npy", ".npz", ".h5") or os.path.exists(sidecar(Path(os.path.realpath(path)), META))


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """A result on disk.

    Attributes:
        path: Path of the file with the vectors, with links followed.
        meta: Content of its meta file.
    """

    path: Path
    meta: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "StoredResult":
        """Read the meta file of a result.

        Raises:
            InputNotFoundError: The result does not exist.
            VerificationError: Its meta file is missing or invalid.
        """
        target = Path(os.path.realpath(path)) if os.path.islink(path) else path
        return cls(path=target, meta=read_meta(target))

    @property
    def num_proteins(self) -> int:
        """Number of its proteins, according to its meta file."""
        return int(self.meta["num_proteins"])

    @property
    def shard(self) -> Shard | None:
        """The shard that it is; None for a whole result."""
        return None if self.meta["shard"] is None else Shard.parse(self.meta["shard"])

    @property
    def selection(self) -> Selection:
        """How its input was read."""
        return Selection(
            on_illegal=self.meta["on_illegal"],
            long_proteins=self.meta["long"],
            window_residues=self.meta["window_residues"],
            shard=self.shard,
            region=choose_region(self.meta.get("region") or "all"),
            gaps=self.meta.get("gaps", "error"),
        )

    @property
    def first_row(self) -> int:
        """Number of the first row: 1, or 0 in results of earlier versions."""
        return 0 if next(read_ids_lines(self.path), "").startswith("0\t") else 1

    @property
    def vectors(self) -> StoredVectors:
        """Its vectors, which stay on disk."""
        return StoredVectors(self.path, self.meta["format"], self.meta["per_residue"])

    def companion(self, end: str) -> Path:
        """Return the path of a file beside the result."""
        return sidecar(self.path, end)

    def verify(self) -> None:
        """Compare the files with their hashes, and the number of proteins with the recorded one.

        Raises:
            VerificationError: A file is missing, cannot be read, or has changed since it was written.
        """
        if sha256_of_file(self.path) != self.meta["sha256"]:
            raise VerificationError(self.path, "its hash differs from the one in its meta file")
        ids = self.companion(IDS)
        if not ids.exists() or sha256_of_file(ids) != self.meta["ids_sha256"]:
            found = f"{ids.name} is missing, or its hash differs from the one in the meta file"
            raise VerificationError(self.path, found)
        try:
            num_stored = self.vectors.count()
        except (OSError, ValueError, KeyError) as error:
            raise VerificationError(self.path, f"it cannot be read ({reason_of(error)})") from error
        if num_stored != self.num_proteins:
            found = f"it contains {num_stored:,} proteins, but its meta file records {self.num_proteins:,}"
            raise VerificationError(self.path, found)
