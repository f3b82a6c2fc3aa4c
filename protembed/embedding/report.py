"""The report on a finished result of `embed`: a page beside it, made from its files without computing anything again.

It reads the vectors once and keeps a sample of them in memory, with about 80 bytes per protein.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from protembed.config.base import Options
from protembed.embedding.checks import list_checks
from protembed.embedding.diagnosis import Diagnosis
from protembed.embedding.input_residues import InputResidues
from protembed.embedding.metadata import REPORT
from protembed.embedding.page import make_page
from protembed.embedding.stored_result import StoredResult
from protembed.io.reading import STANDARD_STREAM
from protembed.io.writing import write_text
from protembed.report.page import render_page


class EmbeddingReport(NamedTuple):
    """A report that was written.

    Attributes:
        path: Path of the page.
        findings: What the user should look at before using the vectors, each as a clause.
    """

    path: Path
    findings: list[str]


def write_report(
    output: Path, options: Options, inputs: Sequence[Path], residues: InputResidues | None = None
) -> EmbeddingReport:
    """Write the page about a result.

    Args:
        output: Path of the result.
        options: Options of the command that made it.
        inputs: Files that the command read; `-` is stdin.
        residues: Residues of the input; None to count X alone, from the table of identifiers.

    Raises:
        VerificationError: A file of the result is damaged.
        OutputError: The page cannot be written.
    """
    result = StoredResult.read(output)
    diagnosis = Diagnosis.make(result, residues)
    checks = list_checks(diagnosis)
    names = ["stdin" if path == STANDARD_STREAM else path.name for path in inputs]
    path = result.companion(REPORT)
    write_text(path, render_page(make_page(diagnosis, checks, options.command_line(inputs), names)))
    return EmbeddingReport(path, [check.found for check in checks if not check.is_passed])
