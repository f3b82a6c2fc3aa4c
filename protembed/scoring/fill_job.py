"""The table of the most probable residues at masked positions, and the FASTA file of drawn sequences."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from protembed.callbacks import Callbacks
from protembed.config.fill import FILL_FORMULA
from protembed.data.alphabet import MASK_LETTER, NUM_SPECIAL_TOKENS, encode
from protembed.inference.embedding import check_finite
from protembed.inference.engine import Engine
from protembed.inference.marginals import Marginals, PositionQuery
from protembed.io.delimited import COMMENT
from protembed.io.tables import separator_of
from protembed.io.writing import atomic_file
from protembed.scoring.filling import Draft, RankedResidue, SequenceSampler, rank_residues
from protembed.scoring.masked_proteins import MaskedProteins
from protembed.scoring.protein_job import ProteinJob
from protembed.scoring.request import ScoringRequest
from protembed.text import format_row, printable

_RESIDUES_PER_LINE = 60


def write_filled(
    path: Path, request: ScoringRequest, precision: str, proteins: MaskedProteins, callbacks: Callbacks
) -> dict[str, Any]:
    """Fill in the masked positions of proteins, and write the table or the sequences; return facts for the record.

    Raises:
        ProtembedError: The model or the device does not allow it.
    """
    job = ProteinJob.load(request, precision, _query, callbacks)
    filling, on_computed = request.options.filling, callbacks.on_computed
    callbacks.on_start(_num_tokens(proteins, job.marginals, filling.samples))
    with job.engine() as engine, atomic_file(path) as stream:
        if filling.samples is None:
            rows = _ranked(proteins, job, engine, on_computed)
            stream.writelines(_table_lines(rows, separator_of(path)))
        else:
            sampler = SequenceSampler(
                marginals=job.marginals, temperature=filling.chosen_temperature, precision=getattr(torch, precision)
            )
            drafts = _begin_drafts(proteins, filling.samples, filling.chosen_seed)
            stream.writelines(_fasta_lines(sampler.complete(engine, drafts, on_computed)))
    return {
        "num_proteins": proteins.statistics.num_records,
        "num_positions": proteins.num_positions,
        "num_samples": filling.samples,
        "num_refused": len(proteins.statistics.skipped),
        **proteins.statistics.left_out(),
        "warnings": [*job.warnings(proteins.statistics), *proteins.warnings()],
    }


def _query(sequence: str) -> PositionQuery:
    return PositionQuery.masked(encode(sequence))


def _num_tokens(proteins: MaskedProteins, marginals: Marginals, samples: int | None) -> int:
    """Count the tokens to compute; for samples, those of a protein for each of its draws."""
    if samples is None:
        job = marginals.unmasked()
        return sum(job.num_tokens(_query(protein.sequence)) for protein in proteins.read())
    return samples * sum(
        protein.sequence.count(MASK_LETTER) * (len(protein.sequence) + NUM_SPECIAL_TOKENS)
        for protein in proteins.read()
    )


def _ranked(
    proteins: MaskedProteins, job: ProteinJob, engine: Engine, on_crop: Callable[[int], None]
) -> Iterator[tuple[str, RankedResidue]]:
    """Yield the most probable residues at the masked positions of each protein, with its identifier."""
    names = (protein.id for protein in proteins.read())
    queries = (_query(protein.sequence) for protein in proteins.read())
    computed = engine.run(job.marginals.unmasked(), queries, on_crop)
    for name, (query, log_probs) in zip(names, computed, strict=True):
        check_finite(name, log_probs, "log probabilities", getattr(torch, job.precision))
        for ranked in rank_residues(query, log_probs, job.request.options.filling.num_ranks):
            yield name, ranked


def _table_lines(rows: Iterable[tuple[str, RankedResidue]], separator: str) -> Iterator[bytes]:
    yield f"{COMMENT}probability: {FILL_FORMULA}\n".encode()
    yield format_row(["id", *RankedResidue._fields], separator)
    for name, ranked in rows:
        yield format_row([name, ranked.position, ranked.rank, ranked.residue, f"{ranked.probability:.7g}"], separator)


def _begin_drafts(proteins: MaskedProteins, samples: int, seed: int) -> Iterator[Draft]:
    for protein in proteins.read():
        for number in range(1, samples + 1):
            yield Draft.begin(protein.id, protein.sequence, seed=seed, number=number)


def _fasta_lines(drafts: Iterable[Draft]) -> Iterator[bytes]:
    """Format samples, each named after its protein and its number, uniquely though identifiers may be repeated."""
    used = set[str]()
    for draft in drafts:
        name = stem = f"{printable(draft.id)}_sample{draft.number}"
        repetition = 1
        while name in used:
            repetition += 1
            name = f"{stem}_{repetition}"
        used.add(name)
        sequence = draft.sequence
        lines = [sequence[start : start + _RESIDUES_PER_LINE] for start in range(0, len(sequence), _RESIDUES_PER_LINE)]
        yield "\n".join([f">{name} log_probability={draft.log_probability:.7g}", *lines, ""]).encode()
