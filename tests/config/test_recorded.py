import json

import pytest

from protembed.config.embed import EmbedOptions
from protembed.config.finetune import FinetuneOptions, PredictOptions
from protembed.config.pretrain import PretrainOptions
from protembed.config.recorded import options_from_record
from protembed.config.score import ScoreOptions
from protembed.errors import ConfigError, FormatError, InputNotFoundError

BUNDLED = {"protembed_version": "0.2.0", "model_name": "protembed_t6_8M", "model_revision": None}


@pytest.fixture
def record(tmp_path):
    def write(content):
        path = tmp_path / "record.json"
        path.write_text(json.dumps(content))
        return path

    return write


def test_options_of_a_record_are_made_again_and_given_values_win(record):
    made = EmbedOptions.from_values(model="protembed_t6_8M", pooling="max", layer="3", store_dtype="float16")
    path = record({**made.as_given(), **BUNDLED})

    assert options_from_record(EmbedOptions, path) == made
    assert options_from_record(EmbedOptions, path, layer=2).embedding.layer == "2"
    assert options_from_record(EmbedOptions, path, layer=2).embedding.pooling == "max"


def test_settings_of_an_older_run_are_read_under_their_former_names(record):
    identity = {"size": "t4_1M", "tokens_per_batch": 1024, "steps": 7, "init_from": None, "fasta": "0" * 64}

    options = options_from_record(PretrainOptions, record({"protembed_version": "0.1.0", "identity": identity}))

    assert (options.pretrain.size, options.pretrain.steps, options.batches.batch_tokens) == ("t4_1M", 7, 1024)


def test_settings_of_an_older_result_are_read_from_among_its_other_facts(record):
    facts = {"layer": [6], "pooling": ["mean", "max"], "dtype": "float16", "dim": 640, "sha256": "0" * 64}

    options = options_from_record(EmbedOptions, record({**BUNDLED, **facts}))

    embedding = options.embedding
    assert (embedding.layer, embedding.pooling, embedding.store_dtype) == ("6", "mean,max", "float16")


def test_older_predictions_are_repeated_though_they_name_their_target(record):
    facts = {"target": "label", "on_illegal": "skip", "num_proteins": 12}

    options = options_from_record(PredictOptions, record({**BUNDLED, **facts}), model="signal.model")

    assert options.reader.on_illegal == "skip"


def test_byte_order_mark_of_a_windows_editor_is_harmless(tmp_path):
    (tmp_path / "own.json").write_text('{"pooling": "max"}', encoding="utf-8-sig")

    assert options_from_record(EmbedOptions, tmp_path / "own.json").embedding.pooling == "max"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"command": "embed", "options": {}}, "it is a record of `protembed embed`"),
        ({**BUNDLED, "per_residue": False}, "'per_residue' is not an option of `protembed pretrain`"),
        ({"stepz": 3}, "'stepz' is not an option of `protembed pretrain`; did you mean 'steps'?"),
        ([], "it is not a JSON object"),
    ],
)
def test_record_of_another_command_and_unknown_options_are_errors_that_name_them(record, content, sentence):
    with pytest.raises(FormatError) as raised:
        options_from_record(PretrainOptions, record(content))

    assert sentence in str(raised.value)


def test_file_that_is_missing_or_not_json_is_an_error(tmp_path):
    (tmp_path / "a.json").write_text("a")

    with pytest.raises(InputNotFoundError):
        options_from_record(EmbedOptions, tmp_path / "missing.json")
    with pytest.raises(FormatError, match="not valid JSON"):
        options_from_record(EmbedOptions, tmp_path / "a.json")


def test_paths_that_a_record_does_not_hold_must_be_given(record, tmp_path):
    identity = {"command": "pretrain", "options": {"steps": 7}, "clusters": "1" * 64}
    path = record({"identity": identity})

    with pytest.raises(ConfigError, match="clusters is not given, but .* does not record where that file is"):
        options_from_record(PretrainOptions, path)
    assert options_from_record(PretrainOptions, path, clusters="c.tsv").pretrain.steps == 7


def test_model_is_found_by_its_name_if_it_is_bundled_or_on_the_hub(record):
    facts = {"command": "predict", "options": {"region": "1-70"}, "protembed_version": "0.2.0"}
    here = {**facts, "model_name": "mine.model", "model_revision": None}
    hub = {**facts, "model_name": "owner/name", "model_revision": "abc"}

    with pytest.raises(ConfigError, match="model is not given, but .* does not record where the model is"):
        options_from_record(PredictOptions, record(here))
    assert str(options_from_record(PredictOptions, record(hub)).model.model) == "owner/name@abc"
    assert str(options_from_record(PredictOptions, record(here), model="x").model.model) == "x"


def test_model_of_a_fine_tuning_is_recorded_beside_what_makes_two_the_same(record):
    path = record({**BUNDLED, "identity": FinetuneOptions().as_given()})

    assert str(options_from_record(FinetuneOptions, path).model.model) == "protembed_t6_8M"


def test_several_models_are_found_in_their_order(record):
    facts = {"command": "score", "options": {}, "protembed_version": "0.2.0", "model_name": "owner/name"}
    several = {**facts, "model_revision": "abc", "models": ["owner/name@abc", "protembed_t6_8M"]}

    options = options_from_record(ScoreOptions, record(several))

    assert list(map(str, options.model.model)) == several["models"]
    with pytest.raises(ConfigError, match="does not record where the model is"):
        options_from_record(ScoreOptions, record({**several, "models": ["owner/name@abc", "mine"]}))
    assert list(
        map(str, options_from_record(ScoreOptions, record({**facts, "model_revision": "abc"})).model.model)
    ) == ["owner/name@abc"]
