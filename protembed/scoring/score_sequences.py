"""Score the sequences of a FASTA file: how likely a model finds each of them. Imports torch only to compute."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protembed.callbacks import Callbacks
from protembed.config.score import LIKELIHOODS, ScoreMethod, ScoreOptions, describe_likelihood
from protembed.data.fasta import Record
from protembed.io.delimited import COMMENT
from protembed.io.reading import PathLike, as_path, check_inputs, default_path, unchanged_inputs
from protembed.io.result import Claim, Result
from protembed.io.tables import separator_of
from protembed.io.writing import atomic_file, seekable_inputs
from protembed.scoring.protein_input import ProteinInput, count_amino_acids
from protembed.scoring.protein_summary import ProteinSummary
from protembed.scoring.request import ScoringRequest
from protembed.text import format_row


@dataclass(frozen=True, kw_only=True)
class SequencesSummary(ProteinSummary):
    """What was scored.

    Attributes:
        score_column: Column of the scores.
    """

    kind: Literal["sequences"] = "sequences"
    score_column: str


def score_sequences(
    fasta: PathLike, options: ScoreOptions | None = None, callbacks: Callbacks | None = None
) -> SequencesSummary:
    """Compute the pseudo-log-likelihood of each protein, in the order of the input; the same call resumes a run.

    The first line of the table is a comment with the formula, after `# `: pandas reads it with `comment="#"`.

    Args:
        fasta: FASTA file; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the tokens to compute, those of each protein or window that the model has
            computed, and those of each protein that is saved.

    Raises:
        ChangedInputError: The file changed while it was read.
        NoAminoAcidError: A protein has no standard residue.
        OutputExistsError: The output exists, and another command made it.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks, source = options or ScoreOptions(), callbacks or Callbacks(), as_path("fasta", fasta)
    request = ScoringRequest.make(options)
    output = options.scoring.output or default_path(source, ".scores.tsv")
    result = Result.table(output, [source, request.model.directory], force=options.scoring.force)
    with unchanged_inputs(), seekable_inputs([source]) as paths:
        fingerprint = request.fingerprint(result, paths, {})
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            proteins = ProteinInput.scan(paths[0], options.reader)
            facts, num_resumed = _write(claim, request, fingerprint["precision"], proteins, callbacks)
            recorded = claim.publish({**fingerprint, **facts})
            return _summary(result.output, recorded, num_resumed=num_resumed)


def _write(
    claim: Claim, request: ScoringRequest, precision: str, proteins: ProteinInput, callbacks: Callbacks
) -> tuple[dict[str, Any], int]:
    """Compute what is missing, and write the table; return facts for its record, and the proteins of earlier runs."""
    # Only now, because torch takes seconds to import, and all of the above may already have refused the command.
    from protembed.inference.marginals import PositionQuery
    from protembed.scoring.likelihoods import LikelihoodStore
    from protembed.scoring.protein_job import ProteinJob

    job = ProteinJob.load(request, precision, PositionQuery.amino_acids, callbacks)
    with LikelihoodStore.open(claim, proteins.num_proteins) as store:
        num_resumed = store.num_committed
        statistics = job.run(proteins, store, callbacks)
    method, likelihoods = request.options.scoring.method, map(float, store.values)
    with atomic_file(claim.path) as stream:
        stream.writelines(_lines(method, zip(proteins.read(), likelihoods, strict=True), separator_of(claim.path)))
    check_inputs()
    return {**job.facts(proteins, statistics), "score_column": LIKELIHOODS[method].column}, num_resumed


def _lines(method: ScoreMethod, scored: Iterable[tuple[Record, float]], separator: str) -> Iterator[bytes]:
    """Format the table: the formula, the names of the columns, a line per protein."""
    named = LIKELIHOODS[method]
    yield f"{COMMENT}{named.column}: {describe_likelihood(method)}\n".encode()
    header = ("id", "residues", named.column, "per_residue", named.perplexity_column, "nonstandard")
    yield format_row(header, separator)
    for record, likelihood in scored:
        yield format_row(likelihood_cells(record, likelihood), separator)


def likelihood_cells(record: Record, likelihood: float) -> list[object]:
    """Format the likelihood of a protein as cells of a table.

    >>> protein = Record(row=0, id="P1", description="P1", sequence="MKX", path="a.fasta", line=1)
    >>> likelihood_cells(protein, -6.0)
    ['P1', 3, '-6', '-3', '20.08554', 1]
    """
    num_residues, num_standard = len(record.sequence), count_amino_acids(record.sequence)
    mean = likelihood / num_standard
    numbers = (f"{number:.7g}" for number in (likelihood, mean, math.exp(-mean)))
    return [record.id, num_residues, *numbers, num_residues - num_standard]


def _summary(
    output: Path | None, recorded: Mapping[str, Any], *, num_resumed: int = 0, was_done: bool = False
) -> SequencesSummary:
    formula = describe_likelihood(recorded["method"])
    return SequencesSummary.from_record(
        recorded, output=output, formula=formula, num_resumed=num_resumed, was_done=was_done
    )
