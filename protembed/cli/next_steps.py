"""What a user may do after each command, in one sentence; None where nothing comes next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from protembed.config.embed import EmbedOptions
from protembed.config.finetune import PredictOptions
from protembed.io.reading import is_stream

if TYPE_CHECKING:
    from protembed.attention.summary import AttentionSummary
    from protembed.embedding.check import CheckSummary
    from protembed.embedding.embed import EmbedSummary
    from protembed.embedding.join import JoinSummary
    from protembed.finetuning.finetune import FinetuneSummary
    from protembed.finetuning.predict import PredictSummary
    from protembed.pretraining.report import PretrainSummary
    from protembed.scoring.score import AnyScoreSummary
    from protembed.search.map import MapSummary
    from protembed.search.search import SearchSummary


_MAX_FILES = 3  # a longer command is no help


def _command(*words: object) -> str:
    """Write a command so that it can be copied into a shell."""
    return f"`protembed {shlex.join(map(str, words))}`"


def _with_model(model: Path | None) -> list[object]:
    return [] if model is None else ["-m", model]


def after_embed(summary: "EmbedSummary", fasta: Sequence[Path], options: EmbedOptions) -> str | None:
    """Suggest to look at the page, to join a shard, or to verify a result whose input can be read again."""
    if summary.report is not None:
        return f"open {summary.report} in a browser"
    if summary.output is None or any(map(is_stream, fasta)) or len(fasta) > _MAX_FILES:
        return None
    if options.embedding.shard is not None:
        return "when all shards are done, `protembed join` makes one result of them"
    return f"{_command('check', summary.output, *fasta, *_with_model(options.model.model))} verifies the result"


def after_check(summary: "CheckSummary") -> str:
    """Suggest to load the result in Python."""
    first, *others = summary.results
    which = "it" if not others else "the first of them"
    return f'in Python, protembed.load_embeddings("{first}") loads {which}'


def after_join(summary: "JoinSummary") -> str | None:
    """Suggest to look at the page about the result, or to load it in Python."""
    if summary.report is not None:
        return f"open {summary.report} in a browser"
    return None if summary.output is None else f'in Python, protembed.load_embeddings("{summary.output}") loads it'


def after_search(summary: "SearchSummary") -> str | None:
    """Suggest to look at the hits."""
    if summary.output is None:
        return None
    return f"open {summary.output} in a spreadsheet; docs/search.md explains its columns"


def after_pretrain(summary: "PretrainSummary", fasta: Sequence[Path]) -> str | None:
    """Suggest to look at the page of a finished run, which those of earlier versions lack, and to use its model."""
    if summary.model is None or not summary.is_finished or is_stream(fasta[0]):
        return None
    run = summary.model.parent
    embed, page = _command("embed", fasta[0], "-m", run), run / "report.html"
    return f"open {page} in a browser; {embed} uses the model" if page.exists() else f"{embed} uses the model"


def after_finetune(summary: "FinetuneSummary") -> str | None:
    """Suggest to read the report of a finished training, and to predict."""
    if summary.output is None or summary.comparison is None:
        return None
    predict = _command("predict", "proteins.fasta", "-m", summary.output)
    return f"open {summary.output / 'report.html'} in a browser, or predict with {predict}"


def after_predict(summary: "PredictSummary", options: PredictOptions) -> str | None:
    """Suggest to look at the predictions, and at how reliable they are."""
    report = (options.model.model or Path()) / "report.html"
    if summary.output is None:
        return None
    reliability = f"; {report} shows how reliable they are" if report.exists() else ""
    return f"open {summary.output} in a spreadsheet{reliability}"


def after_score(summary: "AnyScoreSummary") -> str | None:
    """Suggest to look at the scores, or to score the sequences that were drawn."""
    if summary.kind == "scan":
        return f"open {summary.output / 'report.html'} in a browser"
    if summary.output is None or (summary.kind == "positions" and summary.output.suffix not in (".tsv", ".csv")):
        return None
    if summary.kind == "positions":
        return f"open {summary.output} in a spreadsheet: rank 1 is a residue that the model expects"
    if summary.kind == "fill":
        return _after_fill(summary.output, summary.num_samples)
    column = "per_residue" if summary.kind == "sequences" else summary.score_column
    return f"open {summary.output} in a spreadsheet and sort it by {column!r}: higher is better"


def _after_fill(output: Path, num_samples: int | None) -> str:
    if num_samples is None:
        return f"open {output} in a spreadsheet"
    return f"{_command('score', output)}, with the same `--model`, shows how likely each whole sequence is"


def after_map(summary: "MapSummary") -> str:
    """Suggest to look at the page."""
    return f"open {summary.page} in a browser"


def after_attention(summary: "AttentionSummary") -> str:
    """Suggest to look at the page, or, if no maps were saved, at the table of heads."""
    if not summary.num_maps:
        return f"open {summary.output / 'heads.tsv'} in a spreadsheet; there is a page too with `--save-maps 1`"
    return f"open {summary.output / 'report.html'} in a browser"
