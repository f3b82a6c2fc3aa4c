"""`protembed score`."""

from protembed.cli.display import Display
from protembed.cli.next_steps import after_score
from protembed.cli.options import ScoredPath, configured
from protembed.cli.score_messages import score_summary_lines
from protembed.config.score import ScoreOptions


@configured
def score(input: ScoredPath, options: ScoreOptions, display: Display) -> None:
    """Score variants or sequences zero-shot: how likely the model finds them. Higher is better.

    A table holds variants; FASTA holds sequences, and the same command resumes an interrupted run. With --scan, all
    single mutants of the sequences are scored and drawn.

    Examples:
        protembed score variants.csv --wild-type wild_type.fasta
        protembed score designs.fasta
        protembed score protein.fasta --scan
        protembed score masked.fasta --fill --top 3
    """
    from protembed.scoring.score import score as score_input

    display.announce_download()
    with (
        display.progress("scored", "protein" if options.filling.samples is None else "sample", "token") as progress,
        display.resume_hint(progress, is_always_resumable=False),
    ):

        def begin(num_tokens: int) -> None:
            display.announce_model()
            progress.expect(num_tokens)

        callbacks = display.callbacks(on_start=begin, on_computed=progress.compute, on_progress=progress.advance)
        summary = score_input(input, options, callbacks)
    display.announce_model()
    display.summary(summary, score_summary_lines(summary), next_step=after_score(summary))
