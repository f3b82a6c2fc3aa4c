"""Fill in the masked positions of a FASTA file with a model. Imports torch only to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protembed.callbacks import Callbacks
from protembed.config.fill import FillConfig
from protembed.config.score import ScoreOptions
from protembed.errors import ConfigError
from protembed.io.reading import PathLike, as_path, check_inputs, default_path, unchanged_inputs
from protembed.io.result import Result, recorded_values
from protembed.io.writing import seekable_inputs
from protembed.scoring.masked_proteins import MaskedProteins
from protembed.scoring.request import ScoringRequest

_FASTA_SUFFIXES = (".fasta", ".fa", ".faa", ".fas")


@dataclass(frozen=True, kw_only=True)
class FillSummary:
    """What was filled in.

    Attributes:
        output: Table of residues, or FASTA file of samples; None for stdout.
        num_positions: Masked positions of all proteins.
        num_samples: Sequences that were drawn for each protein; None for a table.
        num_refused: Records that were left out on request.
        warnings: What the user should know about the input and the model, in sentences.
        was_done: Whether the same command had finished before.
    """

    kind: Literal["fill"] = "fill"
    output: Path | None
    num_proteins: int
    num_positions: int
    num_samples: int | None
    num_refused: int
    warnings: Sequence[str] = ()
    was_done: bool = False


def fill_fasta(fasta: PathLike, options: ScoreOptions | None = None, callbacks: Callbacks | None = None) -> FillSummary:
    """Fill in the masked positions of a FASTA file, `?` or `<mask>`: a table of probabilities, or whole sequences.

    The table has the most probable residues at each masked position, from one pass of the model, in the columns `id`,
    `position`, `rank`, `residue` and `probability`, below a comment with the formula. With `samples`, the result is a
    FASTA file of whole sequences in which one position was filled in after the other. The same call resumes a run.

    Args:
        fasta: FASTA file whose records have masked positions; `-` is stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the tokens to compute, those that the model has computed, and those of each
            protein or sample that is saved.

    Raises:
        ChangedInputError: The file changed while it was read.
        OutputExistsError: The output exists, and another command made it.
        NoProteinError: A record has no masked position, and the options do not skip it.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    options, callbacks, source = options or ScoreOptions(), callbacks or Callbacks(), as_path("fasta", fasta)
    request, filling = ScoringRequest.make(options), options.filling
    ending = ".filled.tsv" if filling.samples is None else ".filled.fasta"
    output = options.scoring.output or default_path(source, ending)
    _check_suffix(output, filling)
    result = Result.table(output, [source, request.model.directory], force=options.scoring.force)
    with unchanged_inputs(), seekable_inputs([source]) as (path,):
        fingerprint = request.fingerprint(result, [path], filling.settings())
        with result.claim(fingerprint, callbacks) as claim:
            if claim.recorded is not None:
                return _summary(result.output, claim.recorded, was_done=True)
            proteins = MaskedProteins.scan(path, options.reader)
            from protembed.scoring.fill_job import write_filled  # which imports torch

            facts = write_filled(claim, request, fingerprint["precision"], proteins, callbacks)
            check_inputs()
            return _summary(result.output, claim.publish({**fingerprint, **facts}))


def _check_suffix(output: Path, filling: FillConfig) -> None:
    """Check that the name of the output does not promise a table where sequences are written, or the other way round.

    Raises:
        ConfigError: It does.
    """
    is_fasta = output.suffix.lower() in _FASTA_SUFFIXES
    if filling.samples is None and is_fasta:
        raise ConfigError("output", str(output), "without `samples` a table is written: name it .tsv or .csv")
    if filling.samples is not None and output.suffix and not is_fasta:
        raise ConfigError("output", str(output), "`samples` writes sequences: name it .fasta")


def _summary(output: Path | None, recorded: Mapping[str, Any], *, was_done: bool = False) -> FillSummary:
    facts = recorded_values(FillSummary, recorded)
    return FillSummary(output=output, was_done=was_done, **facts)
