"""A structure whose B factors are the mean scores of a scan, which viewers of structures can show as colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protembed.data.structure_files import with_b_factors
from protembed.data.structures import ChainAlignment, best_chain, read_chains
from protembed.errors import StructureError
from protembed.io.reading import display_name, open_input
from protembed.io.writing import write_text
from protembed.scoring.protein_scan import ProteinScan


@dataclass(frozen=True, kw_only=True)
class MatchedStructure:
    """A structure file, and its chains that match each protein of the input.

    Attributes:
        path: PDB or mmCIF file.
        chains: Matching chains by the sequence of the protein; proteins that match none are missing.
    """

    path: Path
    chains: Mapping[str, Sequence[ChainAlignment]]

    @classmethod
    def match(cls, path: Path, sequences: Sequence[str]) -> "MatchedStructure":
        """Find the chains of a structure that match proteins; copies of a chain all match.

        Raises:
            InputNotFoundError: The file cannot be opened.
            StructureError: The file is no structure, or none of its chains matches a protein.
        """
        chains = read_chains(path)
        matched = {
            sequence: [match for chain in chains if (match := best_chain(sequence, [chain])) is not None]
            for sequence in dict.fromkeys(sequences)
        }
        matched = {sequence: matches for sequence, matches in matched.items() if matches}
        if not matched:
            found = "none of its chains matches a protein of the input, with 9 of 10 residues identical"
            raise StructureError(display_name(path), found, "give a structure of one of the proteins")
        return cls(path=path, chains=matched)

    def write(self, directory: Path, scan: ProteinScan) -> str:
        """Write the structure with the mean score of each position as the B factor of its atoms, and 0 elsewhere.

        Returns:
            Path of the file relative to the directory; empty if no chain matches the protein.
        """
        matches = self.chains.get(scan.record.sequence, ())
        if not matches:
            return ""
        mean_of = dict(zip(scan.positions.tolist(), scan.means.tolist(), strict=True))
        values = {
            (match.chain.name, match.chain.numbers[index]): mean_of[position]
            for match in matches
            for position, index in enumerate(match.indices.tolist())
            if index >= 0 and position in mean_of
        }
        with open_input(self.path) as stream:
            text = stream.read().decode("utf-8-sig", errors="replace")
        changed = with_b_factors(text, display_name(self.path), values)
        suffix = ".cif" if changed.lstrip().lower().startswith("data_") else ".pdb"
        name = f"structures/protein-{scan.record.row + 1:06d}{suffix}"
        write_text(directory / name, changed)
        return name
