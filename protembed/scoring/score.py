"""Scores of what a file holds: its content, and the options, decide what is scored. Imports torch only to compute."""

from protembed.callbacks import Callbacks
from protembed.config.score import ScoreOptions
from protembed.data.sequence_tables import begins_as_fasta
from protembed.io.reading import PathLike, as_path, display_name
from protembed.io.writing import seekable_inputs
from protembed.scoring.fill import FillSummary, fill_fasta
from protembed.scoring.per_position import PositionsSummary, score_positions
from protembed.scoring.scan import ScanSummary, scan_proteins
from protembed.scoring.score_sequences import SequencesSummary, score_sequences
from protembed.scoring.score_variants import ScoreSummary, score_variants

AnyScoreSummary = ScoreSummary | SequencesSummary | PositionsSummary | FillSummary | ScanSummary


def score(input: PathLike, options: ScoreOptions | None = None, callbacks: Callbacks | None = None) -> AnyScoreSummary:
    """Score what a file holds, as `protembed score` does.

    Args:
        input: A FASTA file, which `score_sequences` scores, or `score_positions` if the options name `positions`, or
            `fill_fasta` fills in if they name `fill`; or a table of variants, which `score_variants` scores; `-` is
            stdin.
        options: All options of the command; the defaults if None.
        callbacks: Functions that receive the amount of work, and what of it is done.

    Raises:
        ConfigError: An option does not fit the input, or another option.
        ProtembedError: The input, the model or the output is unsuitable; see `protembed.errors`.
    """
    options = options or ScoreOptions()
    with seekable_inputs([as_path("input", input)]) as (path,):
        mode = options.choose_mode(display_name(path), is_fasta=begins_as_fasta(path))
        match mode:
            case "fill":
                return fill_fasta(path, options, callbacks)
            case "scan":
                return scan_proteins(path, options, callbacks)
            case "variants":
                return score_variants(path, options, callbacks)
            case "sequences":
                return score_sequences(path, options, callbacks)
            case "positions":
                return score_positions(path, options, callbacks)
