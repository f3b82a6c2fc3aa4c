import pytest

from protembed.config.common import parse_numbers
from protembed.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", (1, 2, 3, 4, 5, 6)),
        ("last", (6,)),
        ("1", (1,)),
        ("1,4-6", (1, 4, 5, 6)),
        ("6,2,2-3", (6, 2, 2, 3)),
        (" 1 , 3 ", (1, 3)),
        ("3-3", (3,)),
    ],
)
def test_list_of_numbers_is_parsed_in_its_order(text, chosen):
    assert parse_numbers("heads", text, range(1, 7)) == chosen


def test_layer_zero_is_the_input_embedding_of_models_that_have_one():
    assert parse_numbers("layer", "0,2", range(7)) == (0, 2)
    with pytest.raises(ConfigError, match="layers is '0', but this model has layers 1 to 6: give all, last, or a list"):
        parse_numbers("layers", "0", range(1, 7))


@pytest.mark.parametrize("text", ["", "x", "1,", "3-", "-3", "1.5", "1-2-3", "²", "6-4", "1,6-4", "1" * 5000])
def test_invalid_list_of_numbers_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="heads is .*, but this model has heads 1 to 6") as caught:
        parse_numbers("heads", text, range(1, 7))

    assert caught.value.exit_status == 2


@pytest.mark.parametrize("text", ["0", "7", "1,7", "0-3", "5-7"])
def test_number_that_the_model_lacks_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="this model has layers 1 to 6"):
        parse_numbers("layers", text, range(1, 7))
