"""`protembed check`."""

from protembed.cli.display import Display
from protembed.cli.messages import check_summary_line
from protembed.cli.next_steps import after_check
from protembed.cli.options import ResultAndFasta, configured
from protembed.config.embed import CheckOptions


@configured
def check(files: ResultAndFasta, options: CheckOptions, display: Display) -> None:
    """Verify a result of `embed`: its rows, identifiers and hashes, and a sample of vectors that is computed again.

    Examples:
        protembed check proteins.npy proteins.fasta
        protembed check part1.npy part2.npy proteins.fasta --sample-size 100
    """
    from protembed.embedding.check import check_embeddings

    display.announce_download()
    with display.progress("computed again") as progress:
        summary = check_embeddings(files, options, display.callbacks(on_progress=progress.advance))
    display.summary(summary, [check_summary_line(summary)], next_step=after_check(summary))
