"""What the page of `inspect-attention` says first: what was run, the finding, and the numbers that matter."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protembed.attention.contact_predictors import OWN_HEAD, ContactEvaluation
from protembed.attention.contacts import PrecisionRow
from protembed.attention.head_kinds import HeadKind
from protembed.attention.page import PageContent
from protembed.attention.page_tables import contact_elements, head_tables, site_elements
from protembed.attention.request import InspectionRequest
from protembed.attention.summary import Kind
from protembed.attention.tables import Evaluation
from protembed.data.fasta import ReadStatistics
from protembed.report.page import Card
from protembed.report.table import Prose
from protembed.text import format_share, pluralize, printable

_OFFSETS: Sequence[Kind] = ("offset", "previous", "next", "itself", "nearby")
# What attends to a token at either end, which is no residue, to all residues alike, or to nothing that stands out.
_NO_RESIDUE: Sequence[Kind] = ("cls", "eos", "even", "none")


class PageFacts(NamedTuple):
    """What was run on what, for the header of the page.

    Attributes:
        title: Title of the page.
        facts: Command, model, input and counts, by name.
        recorded_precision: What the model's metadata say of its contact head's precision, as a clause, if anything.
    """

    title: str
    facts: Mapping[str, str]
    recorded_precision: str | None = None


def page_facts(request: InspectionRequest, read: ReadStatistics, num_structures: int) -> PageFacts:
    """Describe what was run on what.

    Args:
        request: The inspection.
        read: Counts of the proteins that were read.
        num_structures: Number of proteins that match a structure.
    """
    config, shape, model = request.options.attention, request.model.shape, request.model
    files = _join(list(request.file_names))
    counts = f"{pluralize(read.num_records, 'protein')}, {pluralize(read.num_residues, 'residue')}"
    facts = {
        "Command": request.command,
        "Model": f"{model.name}, {pluralize(shape.num_layers, 'layer')} of {pluralize(shape.num_heads, 'head')}",
        "Input": f"{files}: {counts}",
    }
    if config.structures:
        facts["Structures"] = f"{pluralize(num_structures, 'protein')} with a structure"
    if config.region is not None:
        facts["Region"] = f"residues {config.region} are shown"
    return PageFacts(
        title=f"What the heads of {model.name} attend to in {files}",
        facts=facts,
        recorded_precision=request.recorded_precision,
    )


def page_content(
    evaluation: Evaluation, facts: PageFacts, statistics: Mapping[str, NDArray[np.floating]]
) -> PageContent:
    """Say what the statistics and tests of all heads show.

    Args:
        evaluation: Statistics and tests of all heads of the model.
        facts: What was run on what.
        statistics: Values of the displayed layers and heads by the name on the page, (layers, heads).
    """
    kinds = evaluation.head_kinds
    return PageContent(
        title=facts.title,
        facts=facts.facts,
        summary=[_finding(evaluation), _groups(kinds)],
        cards=_cards(evaluation),
        kinds=kinds,
        statistics=statistics,
        contacts=contact_elements(evaluation.contacts),
        precisions=_shown_precisions(evaluation.contacts),
        ranking=_ranking(evaluation.contacts, facts.recorded_precision),
        sites=site_elements(evaluation),
        tables=head_tables(evaluation),
    )


# The finding


def _finding(evaluation: Evaluation) -> Prose:
    """Describe the most interesting head in one sentence."""
    best = evaluation.head_kinds[0]
    if best.kind == "contacts" and evaluation.contacts is not None:
        return (
            f"Head {best.head} of layer {best.layer} follows contacts best: of the pairs of distant residues that it "
            f"links most strongly, {format_share(best.strength)} touch in the structure, and of random pairs "
            f"{format_share(best.expected)}."
        )
    if best.kind == "sites":
        return (
            f"Head {best.head} of layer {best.layer} attends to residues labelled {printable(best.word)!r}: in "
            f"{format_share(best.strength)} of comparisons such a residue gets more attention than another of the same "
            "amino acid."
        )
    compared = ["contacts"] if evaluation.contacts is not None else []
    compared += ["annotated sites"] if evaluation.sites else []
    if compared:
        return f"No head follows {' or '.join(compared)} of these proteins clearly."
    if best.kind == "none":
        return "No head shows a clear pattern."
    sentence = f"{best.sentence[0].lower()}{best.sentence[1:]}"
    return f"Head {best.head} of layer {best.layer} has the clearest pattern: {sentence}"


def _groups(kinds: Sequence[HeadKind]) -> Prose:
    """Count the heads by what they are known for, in one sentence."""
    counts = Counter(kind.kind for kind in kinds)
    groups: Mapping[tuple[str, str], Sequence[Kind]] = {
        ("follow", "contacts"): ("contacts",),
        ("attend", "to annotated sites"): ("sites",),
        ("attend", "to a place at a fixed distance along the chain"): _OFFSETS,
        ("attend", "to certain amino acids"): ("amino acid",),
        ("attend", "to no residue in particular"): _NO_RESIDUE,
    }
    sizes = {words: sum(counts[kind] for kind in group) for words, group in groups.items()}
    parts = [f"{n} {verb}{'s' if n == 1 else ''} {what}" for (verb, what), n in sizes.items() if n]
    return f"Of the model's {pluralize(len(kinds), 'head')}, {_join(parts)}."


def _join(parts: Sequence[str]) -> str:
    *others, last = parts
    comma = "," if len(others) > 1 else ""
    return f"{', '.join(others)}{comma} and {last}" if others else last


# Cards


def _cards(evaluation: Evaluation) -> list[Card]:
    """Choose up to four numbers: the best head of the kinds that matter most, and the contact predictor."""
    kinds = evaluation.head_kinds
    contacts = evaluation.contacts
    shown = contacts.shown if contacts is not None and contacts.found_contacts else None
    cards = [] if shown is None else [_predictor_card(shown)]
    named: Mapping[str, Sequence[Kind]] = {
        "Heads that follow contacts": ("contacts",),
        "Heads that attend to sites": ("sites",),
        "Heads at a fixed distance": _OFFSETS,
        "Heads on certain amino acids": ("amino acid",),
        "Heads on no residue in particular": _NO_RESIDUE,
    }
    # That no head follows contacts or sites is a result too, if these were compared.
    compared = {"contacts"} if contacts is not None else set()
    compared |= {"sites"} if evaluation.sites else set()
    for name, group in named.items():
        members = [kind for kind in kinds if kind.kind in group]
        if members or group[0] in compared:
            cards.append(Card(name=name, value=f"{len(members)} of {len(kinds)}", note=_strongest(members)))
    return cards[:4]


def _strongest(members: Sequence[HeadKind]) -> Prose:
    if not members or members[0].kind in _NO_RESIDUE:
        return ""
    best = max(members, key=lambda kind: kind.strength)
    head = f"layer {best.layer}, head {best.head}"
    if best.kind == "contacts":
        return f"best: {head}, {format_share(best.strength)} right; random pairs: {format_share(best.expected)}"
    if best.kind == "sites":
        return f"clearest: {head}, {printable(best.word)!r}"
    return f"clearest: {head}, {best.word}, {format_share(best.strength)}"


def _predictor_card(shown: PrecisionRow) -> Card:
    """Say how many of the predicted contacts are right, beside random pairs."""
    value = "undefined" if shown.precision.value is None else format_share(shown.precision.value)
    note = "of the likeliest pairs, as many as residues and far apart along the chain, are in contact"
    if shown.random is not None:
        note += f"; random pairs: {format_share(shown.random)}"
    return Card(name="Predicted contacts", value=value, note=note)


def _shown_precisions(contacts: ContactEvaluation | None) -> dict[str, dict[str, dict[str, float | None]]]:
    """Collect the precision of the predictor whose contacts are drawn, over all proteins, by range and fraction."""
    rows = [] if contacts is None else contacts.precisions.get(OWN_HEAD, contacts.precisions.get("regression", []))
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        precision = {"value": row.precision.value, "low": row.precision.low, "high": row.precision.high}
        found.setdefault(row.range_name, {})[row.fraction_name] = {**precision, "random": row.random}
    return found


def _ranking(contacts: ContactEvaluation | None, recorded_precision: str | None) -> Prose:
    """Say what ranks the pairs of the contact map, and how precise it was elsewhere unless it is evaluated here."""
    if contacts is None and recorded_precision is not None:
        return f"The pairs are ranked by the model's own contact head: {recorded_precision}."
    if contacts is None or OWN_HEAD in contacts.precisions:
        return "The pairs are ranked by the model's own contact head."
    return (
        "The pairs of a protein with a structure are ranked by a regression over all heads that was fitted to other "
        "structures; probabilities are those of the regression fitted to all of them."
    )
