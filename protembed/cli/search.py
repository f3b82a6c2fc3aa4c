"""`protembed search`."""

from protembed.cli.display import Display
from protembed.cli.next_steps import after_search
from protembed.cli.options import DatabasePath, QueriesPath, configured
from protembed.cli.search_messages import search_summary_lines
from protembed.config.search import SearchOptions


@configured
def search(queries: QueriesPath, database: DatabasePath, options: SearchOptions, display: Display) -> None:
    """Find the nearest proteins of a database for each query, by their vectors.

    Examples:
        protembed search queries.fasta database.fasta -k 5 --centre
        protembed search new.npy 'database.*-of-8.npy' -o hits.tsv
        protembed search a.npy a.npy --sequences a.fasta --labels labels.csv
        protembed search new.fasta a.fasta --labels labels.csv --transfer
    """
    from protembed.search.search import search_embeddings
    from protembed.search.sides import computes_vectors

    if computes_vectors(queries, database):
        display.announce_download()
    with display.progress("searched or embedded") as progress:

        def begin(amount: int) -> None:
            progress.begin_stage("")
            progress.expect(amount)

        callbacks = display.callbacks(on_start=begin, on_computed=progress.compute, on_progress=progress.advance)
        summary = search_embeddings(queries, database, options, callbacks)
    display.summary(summary, search_summary_lines(summary), next_step=after_search(summary))
