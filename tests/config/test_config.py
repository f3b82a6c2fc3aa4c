import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import protembed.config
from protembed.config.base import (
    FORMER_NAMES,
    Config,
    as_plain_values,
    choices_of,
    flag_name,
    with_current_names,
    with_flags,
)
from protembed.config.common import DeviceConfig, InferenceDeviceConfig, ModelConfig
from protembed.config.embed import EmbedConfig, EmbedOptions
from protembed.config.finetune import FinetunedModelConfig
from protembed.config.inspect_attention import AttentionConfig, AttentionOptions
from protembed.config.model_sizes import DEFAULT_SIZE, SIZES, ESM2Shape, SizeName
from protembed.config.pretrain import BatchConfig, MaskingConfig, PretrainConfig, PretrainOptions
from protembed.errors import ConfigError, TableError
from protembed.model.checkpoint import new_checkpoint

for module in iter_modules(protembed.config.__path__, "protembed.config."):
    import_module(module.name)
CONFIGS = Config.__subclasses__()
OPTIONS = [(kind, spec) for kind in CONFIGS for spec in dataclasses.fields(kind)]
BOUNDED = [(kind, spec, end) for kind, spec in OPTIONS for end in ("min", "max") if spec.metadata[end] is not None]


CHOSEN = [(kind, spec) for kind, spec in OPTIONS if choices_of(get_type_hints(kind)[spec.name])]


def each(cases):
    return [pytest.param(*case, id=" ".join([case[0].__name__, case[1].name, *case[2:]])) for case in cases]


@pytest.mark.parametrize(("kind", "spec"), each(OPTIONS))
def test_every_option_has_a_help_sentence_and_a_default(kind, spec):
    assert spec.metadata["help"].endswith(".")
    assert hasattr(kind(), spec.name)


@pytest.mark.parametrize(("kind", "spec", "end"), each(BOUNDED))
def test_values_out_of_range_are_rejected(kind, spec, end):
    beyond = spec.metadata[end] + (1 if end == "max" else -1)

    for value in (beyond, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"^{spec.name} is {value}") as caught:
            kind(**{spec.name: value})
        assert caught.value.exit_status == 2


@pytest.mark.parametrize(("kind", "spec"), each(CHOSEN))
def test_values_other_than_the_choices_are_rejected(kind, spec):
    for choice in choices_of(get_type_hints(kind)[spec.name]):
        assert getattr(kind(**{spec.name: choice}), spec.name) == choice

    with pytest.raises(
        ConfigError, match=f"^{spec.name} is 'other', but one of {choices_of(get_type_hints(kind)[spec.name])[0]}"
    ):
        kind(**{spec.name: "other"})


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (PretrainConfig, {"steps": 10, "max_minutes": 1.0}, "max_minutes"),
        (BatchConfig, {"batch_tokens": 603, "crop_residues": 300}, "batch_tokens"),
        (MaskingConfig, {"random_rate": 0.6, "keep_rate": 0.5}, "keep_rate"),
    ],
)
def test_contradicting_options_are_rejected(kind, options, name):
    with pytest.raises(ConfigError, match=f"^{name} is") as caught:
        kind(**options)

    assert caught.value.exit_status == 2
    for name in options:
        kind(**{name: options[name]})


def test_options_at_the_limit_of_agreement_are_accepted():
    BatchConfig(batch_tokens=516, crop_residues=256)
    MaskingConfig(random_rate=0.5, keep_rate=0.5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs_are_frozen_and_keyword_only(kind):
    first = dataclasses.fields(kind)[0].name

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), first, None)
    with pytest.raises(TypeError):
        kind(*[None] * 2)
    if kind is not ModelConfig:
        with pytest.raises(TypeError):
            kind(None)


def test_the_model_is_the_only_positional_field():
    assert ModelConfig("esm2_t12_35M") == ModelConfig(model="esm2_t12_35M")
    assert FinetunedModelConfig("my.model").model == Path("my.model")


@pytest.mark.parametrize(("kind", "spec"), each(OPTIONS))
def test_the_docstring_of_a_config_describes_each_field_with_its_help_range_and_default(kind, spec):
    text = " ".join(kind.__doc__.split())
    described = text.partition(f" {spec.name} (")[2]

    assert re.sub("--([a-z-]+)", lambda flag: f"`{flag[1].replace('-', '_')}`", spec.metadata["help"]) in described
    assert all(repr(choice) in described for choice in choices_of(get_type_hints(kind)[spec.name]))
    assert spec.metadata["min"] is None or f"{spec.metadata['min']:g}" in described
    assert spec.default in (None, dataclasses.MISSING) or f"Default: {spec.default!r}." in described
    assert "--" not in text


def test_repr_shows_only_what_differs_from_the_defaults():
    config = EmbedConfig(output="emb.npy", pooling=["mean", "max"], window_residues=None, force=False)

    assert repr(config) == "EmbedConfig(output='emb.npy', pooling='mean,max')"
    assert repr(EmbedOptions()) == "EmbedOptions()"
    assert (
        repr(EmbedOptions(model=ModelConfig("m"), embedding=config))
        == f"EmbedOptions(model=ModelConfig(model='m'), embedding={config})"
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_option_names_of_a_command_are_distinct(kind):
    specs = dataclasses.fields(kind)
    flags = [*map(flag_name, (spec.name for spec in specs)), *filter(None, (spec.metadata["short"] for spec in specs))]

    assert len(set(flags)) == len(flags)
    assert all(flag.startswith("-") and "_" not in flag for flag in flags)


def test_flags_follow_the_name_of_their_field():
    assert [flag_name(name) for name in ("mask_rate", "output")] == ["--mask-rate", "--output"]


def test_errors_speak_in_names_to_python_and_in_flags_to_the_command_line():
    with pytest.raises(ConfigError) as wrong:
        EmbedConfig(long_proteins="foo")
    with pytest.raises(ConfigError) as contradicting:
        PretrainConfig(size="t6_8M", init_from="m")

    assert str(wrong.value) == "long_proteins is 'foo', but one of window, error, truncate, skip is expected"
    assert with_flags(wrong.value).startswith("--long-proteins is 'foo', but one of")
    assert str(contradicting.value).startswith("size is 't6_8M', but `init_from` was given too")
    assert with_flags(contradicting.value).startswith("--size is 't6_8M', but --init-from was given too")
    assert with_flags(ConfigError("report", True, "it needs `output`")) == "--report is given, but it needs --output"


def test_only_names_of_options_are_written_as_flags():
    argument = ConfigError("fasta", [], "at least one file is expected")
    contents = TableError("region", "`thesis` is in `seed`, region", "run `protembed models`")

    assert with_flags(argument) == str(argument)
    assert with_flags(contents) == "region: `thesis` is in --seed, region; run `protembed models`"


@pytest.mark.parametrize("kind", CONFIGS)
def test_plain_values_can_be_stored_as_json(kind):
    assert json.loads(json.dumps(as_plain_values(kind()))) == as_plain_values(kind())


def test_plain_values_omit_paths_and_force():
    here = PretrainConfig(output=Path("here.run"), valid=[Path("v.fasta")], force=True, seed=3)
    there = PretrainConfig(output=Path("there.run"), seed=3)

    assert as_plain_values(here)["seed"] == 3
    assert as_plain_values(here).keys().isdisjoint({"output", "force", "valid"})
    assert as_plain_values(here).items() <= as_plain_values(there).items()


def test_every_size_is_named_after_its_layers():
    assert set(get_args(SizeName)) == set(SIZES)
    assert all(name.startswith(f"t{shape.num_layers}_") for name, shape in SIZES.items())


def test_a_shape_of_ones_own_replaces_the_size():
    assert PretrainConfig(layers=3, dim=24, heads=2).shape == ESM2Shape(num_layers=3, dim=24, num_heads=2)
    assert PretrainOptions.from_values(layers=2, dim=64, heads=2).pretrain.shape.dim == 64
    assert PretrainConfig(size="t4_1M").shape == SIZES["t4_1M"]
    assert PretrainConfig().shape == SIZES[DEFAULT_SIZE]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 2}, "layers is 2, but `dim` and `heads` must be given with it"),
        ({"layers": 2, "heads": 4}, "layers is 2, but `dim` must be given with it"),
        ({"layers": 2, "dim": 30, "heads": 4}, "dim is 30, but a multiple of 8 is expected: each head needs an even"),
        ({"layers": 2, "dim": 32, "heads": 4, "size": "t4_1M"}, "layers is 2, but `size` was given too: choose one"),
        ({"layers": 2, "dim": 32, "heads": 4, "init_from": "x"}, "layers is 2, but `init_from` was given too"),
        ({"layers": 0, "dim": 32, "heads": 4}, "layers is 0, but a value of at least 1 is expected"),
    ],
)
def test_a_shape_that_is_incomplete_odd_or_given_twice_is_an_error(given, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        PretrainConfig(**given)


def test_a_shape_is_named_by_its_size_or_described():
    assert SIZES["t6_8M"].name == "t6_8M"
    assert ESM2Shape(num_layers=3, dim=24, num_heads=2).name == "3 layers of width 24"


@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
def test_every_size_has_heads_of_even_width(shape):
    assert shape.dim % (2 * shape.num_heads) == 0


@pytest.mark.parametrize("size", ["t4_1M", "t6_8M"])
def test_parameters_of_a_size_are_counted_without_building_it(size):
    checkpoint = new_checkpoint(SIZES[size], "gaussian", seed=0)

    assert SIZES[size].num_parameters == checkpoint.num_parameters


@pytest.mark.parametrize(
    ("options", "name"),
    [({"size": "t6_8M", "init_from": Path("m")}, "size"), ({"cluster_column": "family"}, "cluster_column")],
)
def test_options_without_effect_are_rejected(options, name):
    with pytest.raises(ConfigError, match=f"^{name} is"):
        PretrainConfig(**options)


def values_of(kind, spec):
    """Draw values that the option may have, and some beyond its range."""
    hint = get_type_hints(kind)[spec.name]
    if choices := choices_of(get_type_hints(kind)[spec.name]):
        values = st.sampled_from(choices)
    elif {int, float}.isdisjoint({hint, *get_args(hint)}):
        # Paths, words and flags have no range.
        values = st.just(getattr(kind(), spec.name))
    else:
        low, high = (spec.metadata[end] for end in ("min", "max"))
        margin = st.sampled_from([-1, 0, 1])
        near = [end for end in (low, high) if end is not None]
        numbers = st.floats(-1e9, 1e9) if float in (hint, *get_args(hint)) else st.integers(-10, 10**6)
        values = numbers | st.tuples(st.sampled_from(near or [0]), margin).map(sum)
    return values | st.none() if type(None) in get_args(hint) else values


@pytest.mark.promise(24)
@pytest.mark.parametrize("kind", CONFIGS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_options_are_stored_or_the_wrong_one_is_named(kind, data):
    specs = {spec.name: spec for spec in dataclasses.fields(kind)}
    names = data.draw(st.sets(st.sampled_from(sorted(specs)), max_size=3))
    options = {name: data.draw(values_of(kind, specs[name])) for name in names}
    try:
        config = kind(**options)
    except ConfigError as error:
        assert error.option in specs
        assert error.exit_status == 2
        return

    assert all(getattr(config, name) == value for name, value in options.items())
    for name, value in options.items():
        low, high = (specs[name].metadata[end] for end in ("min", "max"))
        assert value is None or low is None or value >= low
        assert value is None or high is None or value <= high
    stored = json.loads(json.dumps(as_plain_values(config)))
    assert as_plain_values(kind(**stored)) == as_plain_values(config)


# Former names


@pytest.mark.parametrize(("former", "current"), FORMER_NAMES.items())
def test_former_names_lead_to_fields_that_exist(former, current):
    names = {spec.name for _, spec in OPTIONS}

    assert current in names and former not in names
    assert with_current_names({former: 1}) == {current: 1}


def test_options_are_made_from_the_values_of_single_fields():
    options = EmbedOptions.from_values(model="some.model", pooling="max", threads=2)

    assert options == EmbedOptions(
        model=ModelConfig(model=Path("some.model")),
        embedding=EmbedConfig(pooling="max"),
        compute=InferenceDeviceConfig(threads=2),
    )


def test_a_value_without_a_field_is_refused():
    with pytest.raises(ConfigError, match="EmbedOptions has no field of this name"):
        EmbedOptions.from_values(poling="max")


@pytest.mark.parametrize(
    ("layer", "text"),
    [(3, "3"), (np.int64(3), "3"), ([3, 6], "3,6"), ((3, "6"), "3,6"), (range(2), "0,1"), (np.array([3, 6]), "3,6")],
)
def test_layers_may_be_numbers_and_lists(layer, text):
    assert EmbedConfig(layer=layer, pooling=["mean", "max"]) == EmbedConfig(layer=text, pooling="mean,max")


@pytest.mark.parametrize("layer", [True, 3.0, [], [3.5], {3: None}.values, object()])
def test_anything_else_in_place_of_a_text_is_rejected(layer):
    with pytest.raises(ConfigError, match="layer is .*, but a text, a whole number, or a list of them is expected"):
        EmbedConfig(layer=layer)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("force", "yes", "True or False"),
        ("per_residue", 1, "True or False"),
        ("threads", "1", "a whole number"),
        ("threads", True, "a whole number"),
        ("window_residues", 64.0, "a whole number"),
    ],
)
def test_a_value_of_another_type_is_rejected(name, value, expected):
    with pytest.raises(ConfigError, match=f"{name} is .*, but {expected} is expected"):
        EmbedOptions.from_values(**{name: value})


def test_numbers_of_numpy_are_converted():
    assert type(DeviceConfig(threads=np.int64(2)).threads) is int
    assert type(MaskingConfig(mask_rate=np.float32(0.25)).mask_rate) is float


def test_a_former_name_is_taken_and_a_near_one_suggested():
    assert EmbedOptions.from_values(dtype="float16").embedding.store_dtype == "float16"
    with pytest.raises(ConfigError, match="did you mean `layer`"):
        EmbedOptions.from_values(layr=3)


def test_command_line_names_inputs_without_folders_and_options_that_are_not_the_default():
    model = ModelConfig(model="/home/me/my model")
    attention = AttentionConfig(output="att", structures=["/data/1abc.pdb", "b.cif"], rollout=True, layers="1,2")
    options = AttentionOptions(model=model, attention=attention, compute=DeviceConfig(threads=1))

    command = options.command_line([Path("/home/me/proteins.fasta"), Path("-")])

    assert command == (
        "protembed inspect-attention proteins.fasta - --model 'my model' --layers 1,2 --rollout --structures 1abc.pdb "
        "--structures b.cif"
    )


def test_command_line_of_the_defaults_is_the_command_and_its_inputs():
    assert EmbedOptions().command_line([Path("a.fasta")]) == "protembed embed a.fasta"
