"""Scans: the scores of all single mutants of proteins, with heat maps of them. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from protembed.callbacks import Callbacks
from protembed.config.base import as_plain_values
from protembed.config.score import ScoreMethod, ScoreOptions, describe_formula
from protembed.errors import ConfigError
from protembed.io.reading import (
    PathLike,
    as_path,
    check_inputs,
    default_path,
    display_name,
    sha256_of_inputs,
    unchanged_inputs,
)
from protembed.io.result import Result, recorded_values
from protembed.io.writing import output_errors, seekable_inputs
from protembed.scoring.protein_input import ProteinInput, Requirement
from protembed.scoring.protein_scan import check_scannable
from protembed.scoring.request import ScoringRequest
from protembed.scoring.scan_input import ScanFiles

_RECORD = "meta.json"
# The options that name files.
_FILES = ("measurements", "structure")
_CONTENTS = (
    *(_RECORD, "report.html", "scan.tsv", "scan.npz", "proteins.tsv"),
    *("figures/protein-*.png", "structures/protein-*.pdb", "structures/protein-*.cif"),
)


@dataclass(frozen=True, kw_only=True)
class ScanSummary:
    """What was scanned.

    Attributes:
        output: Directory with the table, the matrix, the figures and the page.
        num_distinct: Different sequences, each of which was computed once.
        num_positions: Scanned positions of all proteins.
        num_displayed: Proteins that the page shows.
        num_structures: Proteins that match a chain of the structure.
        num_refused: Records that were left out on request.
        num_resumed: Proteins that an earlier process had computed.
        best: The mutants with the highest scores of all proteins, the best first: identifier, mutant and score.
        notes: How well the scores rank the measured values, and what was read of them, in sentences.
        warnings: What the user should know about the input and the model, in sentences.
        was_done: Whether the same command had finished before.
    """

    kind: Literal["scan"] = "scan"
    output: Path
    method: ScoreMethod
    formula: str
    num_proteins: int
    num_distinct: int
    num_positions: int
    num_mutants: int
    num_displayed: int
    num_structures: int
    num_refused: int
    best: Sequence[tuple[str, str, float]]
    num_resumed: int = 0
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    was_done: bool = False


def scan_proteins(
    fasta: PathLike, options: ScoreOptions | None = None, callbacks: Callbacks | None = None
) -> ScanSummary:
    """Score all 19 substitutions of every position of each protein, and draw them; the same call resumes a run.

    The output directory holds `report.html` with a heat map of each of the first proteins, `scan.tsv` with the columns
    `id`, `mutant` (as `A42G`) and `score`, `scan.npz` with the same scores as arrays, `proteins.tsv`, and
    `figures/protein-000001.png`. With a structure, `structures/` has it with the mean score of each position as B
    factor. A score is that of `score_variants` for the same variant, to the last bit.

    Args:
        fasta: FASTA file; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the tokens to compute, those of each protein or window that the model has
            computed, and those of each protein that is saved.

    Raises:
        ChangedInputError: A file changed while it was read.
        ConfigError: The method is `pseudo-perplexity`, which scores no positions.
        OutputExistsError: There is another result in the output directory.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks, given = options or ScoreOptions(), callbacks or Callbacks(), as_path("fasta", fasta)
    if options.scoring.method == "pseudo-perplexity":
        raise ConfigError("method", options.scoring.method, "a scan needs masked-marginals or wildtype-marginals")
    request = ScoringRequest.make(options)
    named = {name: path for name in _FILES if (path := getattr(options.scan, name)) is not None}
    inputs = [given, *named.values()]
    output = options.scoring.output or default_path(given, ".scan")
    result = _describe_result(output, [*inputs, request.model.directory], force=options.scoring.force)
    with unchanged_inputs(), seekable_inputs(inputs) as paths:
        copies = dict.fromkeys(_FILES) | dict(zip(named, paths[1:], strict=True))
        hashes = {name: None if path is None else sha256_of_inputs([path]) for name, path in copies.items()}
        tables = [] if options.scan.measurements is None else [options.table]
        fingerprint = request.fingerprint(result, paths[:1], as_plain_values(options.scan, *tables) | hashes)
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(claim.output, claim.recorded, was_done=True)
            requirement = Requirement(check=partial(check_scannable, region=options.scan.range))
            proteins = ProteinInput.scan(paths[0], options.reader, requirement)
            command, name = options.command_line([given]), Path(display_name(given)).name
            precision = fingerprint["precision"]
            files = ScanFiles(fasta=paths[0], **copies, command=command, fasta_name=name, precision=precision)
            with output_errors(claim.output):
                from protembed.scoring.scan_job import run_scan  # which imports torch

                facts, num_resumed = run_scan(claim, request, files, proteins, callbacks)
                check_inputs()
                recorded = claim.publish({**fingerprint, **facts})
            return _summary(claim.output, recorded, num_resumed=num_resumed)


def _describe_result(output: Path, inputs: Sequence[Path], *, force: bool) -> Result:
    """Describe the directory, and check that it may be written."""
    return Result(
        output,
        inputs,
        force=force,
        record=_RECORD,
        contents=_CONTENTS,
        is_record=lambda content: "num_mutants" in content,
    )


def _summary(output: Path, recorded: Mapping[str, Any], *, num_resumed: int = 0, was_done: bool = False) -> ScanSummary:
    facts = recorded_values(ScanSummary, recorded)
    facts["best"] = [tuple(mutant) for mutant in recorded["best"]]
    facts |= {"formula": describe_formula(recorded["method"]), "num_resumed": num_resumed}
    return ScanSummary(output=output, was_done=was_done, **facts)
