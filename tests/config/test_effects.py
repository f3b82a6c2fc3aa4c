import pytest

from protembed.config.embed import EmbedOptions
from protembed.config.finetune import FinetuneOptions
from protembed.config.inspect_attention import AttentionOptions
from protembed.config.pretrain import PretrainOptions


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            PretrainOptions.from_values(optimizer="sgd", weight_decay=0.1),
            "`weight_decay` has no effect: it needs `optimizer` muon or adamw",
        ),
        (
            PretrainOptions.from_values(schedule="cosine", decay_fraction=0.5),
            "`decay_fraction` has no effect: it needs `schedule` stable",
        ),
        (
            PretrainOptions.from_values(init_from="a.run", weight_init="uniform"),
            "`weight_init` has no effect: it needs a command without `init_from`",
        ),
        (
            FinetuneOptions.from_values(method="frozen", epochs=3),
            "`epochs` has no effect: it needs `method` full or lora",
        ),
        (
            FinetuneOptions.from_values(method="full", lora_rank=4),
            "`lora_rank` has no effect: it needs `method` lora",
        ),
        (
            FinetuneOptions.from_values(split="random", cluster_identity=0.7),
            "`cluster_identity` has no effect: it needs `split` cluster or kfold",
        ),
        (
            EmbedOptions.from_values(output="a.npy", h5_names="hash"),
            "`h5_names` has no effect: it needs an output in .h5",
        ),
        (
            AttentionOptions.from_values(num_permutations=200),
            "`num_permutations` has no effect: it needs `structures` or `sites`",
        ),
        (
            AttentionOptions.from_values(save_maps=0, figure_format="svg"),
            "`figure_format` has no effect: it needs `save_maps` of at least 1",
        ),
    ],
)
def test_option_without_effect_is_named_with_what_it_needs(options, sentence):
    assert options.without_effect() == [sentence]


def test_all_that_an_option_lacks_is_named_at_once():
    options = FinetuneOptions.from_values(method="frozen", schedule="cosine", decay_fraction=0.5)

    assert "`decay_fraction` has no effect: it needs `method` full or lora and `schedule` stable" in (
        options.without_effect()
    )


@pytest.mark.parametrize(
    "options",
    [
        PretrainOptions(),
        PretrainOptions.from_values(weight_decay=0.1, decay_fraction=0.5, weight_init="uniform"),
        FinetuneOptions.from_values(epochs=3, lora_rank=4, weight_decay=0.1, cluster_identity=0.7),
        FinetuneOptions.from_values(method="frozen", seed=3),
        EmbedOptions.from_values(per_residue=True, h5_names="hash"),
        EmbedOptions.from_values(output="a.h5", h5_names="hash"),
        AttentionOptions.from_values(sites="sites.tsv", num_permutations=200),
    ],
)
def test_option_that_has_or_may_have_an_effect_is_not_named(options):
    assert options.without_effect() == []
