"""The published models of the ESM family: names, shapes, licences, and published metrics. No torch."""

from dataclasses import dataclass

from protembed.config.common import MICRO_BATCH_TOKENS
from protembed.config.model_sizes import BYTES_PER_NUMBER, SIZES, EncoderShape, ESM2Shape, ESMCShape
from protembed.model.hub import conversion_command

BYTES_PER_BFLOAT16 = 2
# A shorter beginning than `esm1` says nothing.
_MIN_LETTERS = 4
# Beside the feed-forward part: the residual stream and its normalised copy, queries, keys, values, what they mix to.
_STATES_PER_TOKEN = 8


def embedding_bytes(shape: EncoderShape, bytes_per_number: int = BYTES_PER_NUMBER) -> int:
    """Estimate the memory for embedding: the weights, and the states of a batch of 1,024 tokens in one layer.

    >>> embedding_bytes(SIZES["t33_650M"]) // 10**6, embedding_bytes(SIZES["t33_650M"], BYTES_PER_BFLOAT16) // 10**6
    (2688, 1344)
    """
    states = _STATES_PER_TOKEN * shape.dim + 2 * shape.feed_forward_dim
    return bytes_per_number * (shape.num_parameters + MICRO_BATCH_TOKENS * states)


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A model of the ESM family on the Hugging Face hub.

    Attributes:
        name: The short name, such as `esm2_t12_35M`.
        hub_id: The repository on the hub, such as `facebook/esm2_t12_35M_UR50D`.
        best_at: What the model is for, in a few words.
        revision: The commit that is used if none is named; None for the newest.
        has_safetensors: Whether that commit holds safetensors, as far as is known.
        perplexity: The perplexity on 10,000 test proteins of UniRef50, 15 % masked, over all 33 tokens; None where
            unknown.
        contact_precision: The precision of the top L long-range contacts of a protein of L residues, as a fraction;
            None where unknown.
        variant_spearman: The mean Spearman correlation with the deep mutational scans of ProteinGym; None where
            unknown.

    Source: perplexity: Synthyra's evaluation; contacts: the README of facebookresearch/esm, large validation set;
        variants: ProteinGym.
    """

    name: str
    hub_id: str
    shape: EncoderShape
    best_at: str
    licence: str = "MIT"
    revision: str | None = None
    has_safetensors: bool = True
    perplexity: float | None = None
    contact_precision: float | None = None
    variant_spearman: float | None = None

    def is_called(self, name: str) -> bool:
        """Check whether a name is the model's: in any case, with or without the owner and the suffix of the data.

        >>> PUBLISHED_MODELS[1].is_called("ESM2_t12_35m"), PUBLISHED_MODELS[1].is_called("lab/esm2_t12_35M")
        (True, False)
        """
        owner, _, repository = self.hub_id.partition("/")
        names = {form for base in (self.name, repository) for form in (base, f"{owner}/{base}")}
        return _plain(name) in map(_plain, names)

    @property
    def pinned_id(self) -> str:
        """The repository, followed by `@` and the commit if one is pinned."""
        return self.hub_id if self.revision is None else f"{self.hub_id}@{self.revision}"

    @property
    def how_to_get(self) -> str:
        """The option that selects the model, or the command that converts it to a directory."""
        return f"--model {self.name}" if self.has_safetensors else conversion_command(self.hub_id, self.name)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _esm2(
    size: str,
    best_at: str,
    *,
    revision: str | None = None,
    has_safetensors: bool = True,
    perplexity: float | None = None,
    contact_precision: float | None = None,
    variant_spearman: float | None = None,
) -> PublishedModel:
    return PublishedModel(
        name=f"esm2_{size}",
        hub_id=f"facebook/esm2_{size}_UR50D",
        shape=SIZES[size],
        best_at=best_at,
        revision=revision,
        has_safetensors=has_safetensors,
        perplexity=perplexity,
        contact_precision=contact_precision,
        variant_spearman=variant_spearman,
    )


def _esmc(size: str, best_at: str, *, num_layers: int, dim: int) -> PublishedModel:
    return PublishedModel(
        name=f"esmc_{size}",
        hub_id=f"biohub/ESMC-{size.upper()}-hf",
        shape=ESMCShape(num_layers=num_layers, dim=dim, num_heads=dim // 64),
        best_at=best_at,
    )


_ESM1V = ESM2Shape(num_layers=33, dim=1280, num_heads=20, num_positions=1024)
_ESM1B = ESM2Shape(num_layers=33, dim=1280, num_heads=20, num_positions=1024, has_embedding_norm=True)

PUBLISHED_MODELS = (
    _esm2("t6_8M", "quick trials", perplexity=13.16, contact_precision=0.159, variant_spearman=0.226),
    _esm2("t12_35M", "most work on a CPU", perplexity=11.65, contact_precision=0.288, variant_spearman=0.321),
    _esm2("t30_150M", "contacts, variants", perplexity=10.26, contact_precision=0.422, variant_spearman=0.387),
    _esm2("t33_650M", "variant effects", perplexity=8.72, contact_precision=0.501, variant_spearman=0.414),
    # The main branch has only pickled weights.
    _esm2("t36_3B", "contacts", revision="93b119485aaf2649e7de5de85eab3bcf71256552", contact_precision=0.527),
    _esm2("t48_15B", "contacts, most precise", has_safetensors=False, contact_precision=0.545),
    _esmc("300m", "vectors, on a CPU too", num_layers=30, dim=960),
    _esmc("600m", "vectors; long proteins", num_layers=36, dim=1152),
    _esmc("6b", "vectors, on a large GPU", num_layers=80, dim=2560),
    PublishedModel(
        name="esm1b_t33_650M",
        hub_id="facebook/esm1b_t33_650M_UR50S",
        shape=_ESM1B,
        best_at="pipelines built on it",
        contact_precision=0.411,
    ),
    *(
        PublishedModel(
            name=f"esm1v_t33_650M_{number}",
            hub_id=f"facebook/esm1v_t33_650M_UR90S_{number}",
            shape=_ESM1V,
            best_at="variants, mean of all five",
            contact_precision=0.353,
        )
        for number in range(1, 6)
    ),
)


def similar_models(name: str) -> list[str]:
    """List the published models that an incomplete name may mean: its beginning, or some of its parts.

    >>> similar_models("esm-c"), similar_models("ESM2_650M")
    (['esmc_300m', 'esmc_600m', 'esmc_6b'], ['esm2_t33_650M'])
    """
    parts = [part for part in _plain(name).split("_") if part]
    beginning = "".join(parts)
    if len(beginning) < _MIN_LETTERS:
        return []
    names = {model.name: _plain(model.name).split("_") for model in PUBLISHED_MODELS}
    return [known for known, its in names.items() if "".join(its).startswith(beginning) or {*parts} <= {*its}]
