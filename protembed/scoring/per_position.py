"""The probability of each amino acid at each position of proteins. Imports torch only to compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from protembed.callbacks import Callbacks
from protembed.config.positions import PositionsFormat
from protembed.config.score import ScoreOptions, describe_positions
from protembed.errors import ConfigError
from protembed.io.reading import STANDARD_STREAM, PathLike, as_path, check_inputs, unchanged_inputs
from protembed.io.result import Claim, Result
from protembed.io.writing import seekable_inputs
from protembed.scoring.protein_input import ProteinInput
from protembed.scoring.protein_summary import ProteinSummary
from protembed.scoring.request import ScoringRequest


@dataclass(frozen=True, kw_only=True)
class PositionsSummary(ProteinSummary):
    """What was written about each position."""

    kind: Literal["positions"] = "positions"


def score_positions(fasta: PathLike, options: ScoreOptions, callbacks: Callbacks | None = None) -> PositionsSummary:
    """Compute the log probabilities of the 20 amino acids at each residue of each protein; the same call resumes a run.

    The suffix of `positions` chooses the format. `.npz` holds `log_probs`, (sum of residues, 20) float32, `offsets`,
    (proteins + 1,), `ids`, and `amino_acids`, the names of the columns. `.h5` holds a dataset (residues, 20) for each
    protein, and the root attribute `amino_acids`. `.tsv` and `.csv` have a line for each residue, after a comment with
    the formula.

    Args:
        fasta: FASTA file; `-` is stdin.
        options: All options of the command, `positions` among them.
        callbacks: Functions that receive the tokens to compute, those of each protein or window that the model has
            computed, and those of each protein that is saved.

    Raises:
        ConfigError: The suffix is not that of a format, or `output` is given too.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    callbacks, source = callbacks or Callbacks(), as_path("fasta", fasta)
    output, format_name = _choose_format(options)
    request = ScoringRequest.make(options)
    inputs = [source, request.model.directory]
    result = Result(output, inputs, force=options.scoring.force, is_record=lambda content: "sha256" in content)
    with unchanged_inputs(), seekable_inputs([source]) as paths:
        fingerprint = request.fingerprint(result, paths, {"format": format_name})
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            proteins = ProteinInput.scan(paths[0], options.reader)
            facts, num_resumed = _write(claim, request, fingerprint, proteins, callbacks)
            recorded = claim.publish({**fingerprint, **facts})
            return _summary(result.output, recorded, num_resumed=num_resumed)


def _choose_format(options: ScoreOptions) -> tuple[Path, PositionsFormat]:
    """Return the file that is written, and its format by its suffix; lines on stdout are a TSV."""
    output = options.per_position.positions
    if output is None:
        raise ConfigError("positions", None, "it names the file that is written")
    if options.scoring.output is not None:
        expected = f"the probabilities are written to {output} in place of a table of scores: leave it out"
        raise ConfigError("output", str(options.scoring.output), expected)
    suffix = "tsv" if output == STANDARD_STREAM else output.suffix.removeprefix(".")
    for name in get_args(PositionsFormat):
        if name == suffix:
            return output, name
    expected = f"probabilities are written as npz, h5, tsv or csv: name it, for example, {output.stem or 'a'}.npz"
    raise ConfigError("positions", str(output), expected)


def _write(
    claim: Claim,
    request: ScoringRequest,
    fingerprint: Mapping[str, Any],
    proteins: ProteinInput,
    callbacks: Callbacks,
) -> tuple[dict[str, Any], int]:
    """Compute what is missing, and write the file; return facts for its record, and the proteins of earlier runs."""
    # Only now, because torch takes seconds to import, and all of the above may already have refused the command.
    from protembed.scoring.position_files import PositionStore, all_positions, write_file
    from protembed.scoring.protein_job import ProteinJob

    job = ProteinJob.load(request, fingerprint["precision"], all_positions, callbacks)
    with PositionStore.open(claim, proteins, all_positions) as store:
        num_resumed = store.num_committed
        statistics = job.run(proteins, store, callbacks)
    write_file(claim, store.rows, proteins, fingerprint)
    check_inputs()
    return job.facts(proteins, statistics), num_resumed


def _summary(
    output: Path | None, recorded: Mapping[str, Any], *, num_resumed: int = 0, was_done: bool = False
) -> PositionsSummary:
    formula = describe_positions(recorded["method"])
    return PositionsSummary.from_record(
        recorded, output=output, formula=formula, num_resumed=num_resumed, was_done=was_done
    )
