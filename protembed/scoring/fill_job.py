"""The table of the most probable residues at masked positions, and the FASTA file of drawn sequences."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch

from protembed.callbacks import Callbacks
from protembed.config.fill import FILL_FORMULA, FillConfig
from protembed.data.alphabet import MASK_LETTER, NUM_SPECIAL_TOKENS, encode
from protembed.data.fasta import ReadStatistics, Record
from protembed.inference.marginals import PositionQuery
from protembed.io.delimited import COMMENT
from protembed.io.growing import GrowingFiles
from protembed.io.reading import check_inputs
from protembed.io.result import Claim
from protembed.io.tables import separator_of
from protembed.io.writing import atomic_file, output_errors
from protembed.scoring.filling import Draft, RankedResidue, SequenceSampler, rank_residues
from protembed.scoring.masked_proteins import MaskedProteins
from protembed.scoring.position_files import PositionStore
from protembed.scoring.protein_job import ProteinJob
from protembed.scoring.request import ScoringRequest
from protembed.text import format_row, printable

_RESIDUES_PER_LINE = 60
_SAMPLES, _COUNT = "samples", "num_samples"


def write_filled(
    claim: Claim, request: ScoringRequest, precision: str, proteins: MaskedProteins, callbacks: Callbacks
) -> dict[str, Any]:
    """Fill in the masked positions of proteins, and write the table or the sequences; return facts for the record.

    What an earlier process has computed is not computed again.

    Raises:
        ProtembedError: The model or the device does not allow it.
    """
    job = ProteinJob.load(request, precision, _query, callbacks)
    if request.options.filling.samples is None:
        statistics = _write_table(claim, job, proteins, callbacks)
    else:
        statistics = _write_samples(claim, job, proteins, callbacks)
    return {
        "num_proteins": proteins.input.num_proteins,
        "num_positions": proteins.num_positions,
        _COUNT: request.options.filling.samples,
        "num_refused": len(statistics.skipped),
        **statistics.left_out(),
        "warnings": [*job.warnings(statistics), *proteins.warnings()],
    }


def _query(sequence: str) -> PositionQuery:
    return PositionQuery.masked(encode(sequence))


# The table


def _write_table(claim: Claim, job: ProteinJob, proteins: MaskedProteins, callbacks: Callbacks) -> ReadStatistics:
    """Write the most probable residues at the masked positions of each protein; return statistics of the input."""
    with PositionStore.open(claim, proteins.input, _query) as store:
        statistics = job.run(proteins.input, store, callbacks)
    with atomic_file(claim.path) as stream:
        rows = _ranked(proteins, store, job.request.options.filling.num_ranks)
        stream.writelines(_table_lines(rows, separator_of(claim.path)))
    return statistics


def _ranked(proteins: MaskedProteins, store: PositionStore, top: int) -> Iterator[tuple[str, RankedResidue]]:
    """Yield the most probable residues at the masked positions of each protein, with its identifier."""
    for record, (_, log_probs) in zip(proteins.input.read(), store.rows.vectors(), strict=True):
        for ranked in rank_residues(_query(record.sequence), log_probs, top):
            yield record.id, ranked


def _table_lines(rows: Iterable[tuple[str, RankedResidue]], separator: str) -> Iterator[bytes]:
    yield f"{COMMENT}probability: {FILL_FORMULA}\n".encode()
    yield format_row(["id", *RankedResidue._fields], separator)
    for name, ranked in rows:
        yield format_row([name, ranked.position, ranked.rank, ranked.residue, f"{ranked.probability:.7g}"], separator)


# Samples


def _write_samples(claim: Claim, job: ProteinJob, proteins: MaskedProteins, callbacks: Callbacks) -> ReadStatistics:
    """Write the samples that an earlier process has not written; return statistics of the input."""
    filling, statistics = job.request.options.filling, ReadStatistics()
    sampler = SequenceSampler(
        marginals=job.marginals, temperature=filling.chosen_temperature, precision=getattr(torch, job.precision)
    )
    with ExitStack() as stack:
        files = GrowingFiles(claim, {_SAMPLES: claim.path}, stack)
        num_written = files.progress.get(_COUNT, 0)
        missing = islice(_numbered(proteins, filling), num_written, None)
        callbacks.on_start(sum(_num_tokens(record) for record, _ in missing))
        names = islice(_unique_names(_numbered(proteins, filling)), num_written, None)
        drafts = (
            Draft.begin(record.id, record.sequence, seed=filling.chosen_seed, number=number)
            for record, number in islice(_numbered(proteins, filling, statistics), num_written, None)
        )
        with job.engine() as engine:
            for completed in sampler.complete_rounds(engine, drafts, callbacks.on_computed):
                check_inputs()  # before samples become safe, because they are stored under the hash of the input
                with output_errors(claim.output):
                    files[_SAMPLES].writelines(map(_fasta_lines, completed, names))
                num_written += len(completed)
                files.commit({_COUNT: num_written})
                for draft in completed:
                    callbacks.on_progress(draft.num_tokens)
    return statistics


def _numbered(
    proteins: MaskedProteins, filling: FillConfig, statistics: ReadStatistics | None = None
) -> Iterator[tuple[Record, int]]:
    """Yield each protein with the number of each of its samples, from 1."""
    for record in proteins.input.read(statistics):
        for number in range(1, (filling.samples or 0) + 1):
            yield record, number


def _num_tokens(record: Record) -> int:
    """Count the tokens that are computed for a sample of a protein, one pass for each masked position."""
    return record.sequence.count(MASK_LETTER) * (len(record.sequence) + NUM_SPECIAL_TOKENS)


def _unique_names(numbered: Iterable[tuple[Record, int]]) -> Iterator[str]:
    """Name samples after their protein and number, uniquely though identifiers may be repeated."""
    used = set[str]()
    for record, number in numbered:
        name = stem = f"{printable(record.id)}_sample{number}"
        repetition = 1
        while name in used:
            repetition += 1
            name = f"{stem}_{repetition}"
        used.add(name)
        yield name


def _fasta_lines(draft: Draft, name: str) -> bytes:
    """Format a sample as a record of FASTA."""
    sequence = draft.sequence
    lines = [sequence[start : start + _RESIDUES_PER_LINE] for start in range(0, len(sequence), _RESIDUES_PER_LINE)]
    return "\n".join([f">{name} log_probability={draft.log_probability:.7g}", *lines, ""]).encode()
