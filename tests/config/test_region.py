import pytest

from protembed.config.common import Region, choose_region
from protembed.config.embed import EmbedConfig
from protembed.config.finetune import LabelTableConfig, PredictConfig
from protembed.errors import ConfigError

NO_REGIONS = ["", "-", "5", "0-5", "5-4", "a-b", "1-2-3", "1:70", "1.5-3", " 1-70", "1-70\n", "٢-٨", "1–70", "-0"]


@pytest.mark.parametrize(
    ("text", "first", "last"), [("1-70", 1, 70), ("5-5", 5, 5), ("-70", 1, 70), ("20-", 20, None), ("1-", 1, None)]
)
def test_region_is_parsed_with_one_end_or_two(text, first, last):
    assert Region.parse(text) == Region(first, last)
    assert Region.parse(str(Region.parse(text))) == Region(first, last)


@pytest.mark.parametrize("text", NO_REGIONS)
def test_invalid_region_is_a_usage_error_in_every_command(text):
    for config in (EmbedConfig, PredictConfig, LabelTableConfig):
        with pytest.raises(ConfigError, match="region .*two residues such as 1-70 are expected.*or .*all") as caught:
            config(region=text)
        assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("region", "num_residues", "letters"),
    [("1-3", 6, "ABC"), ("1-9", 6, "ABCDEF"), ("6-9", 6, "F"), ("3-", 6, "CDEF"), ("-2", 6, "AB")],
)
def test_a_region_ends_with_the_protein(region, num_residues, letters):
    assert "ABCDEF"[Region.parse(region).within(num_residues)] == letters


def test_protein_shorter_than_the_region_has_no_part():
    assert Region(7, 9).within(6) is None


def test_auto_is_the_recorded_region_and_all_the_whole_protein():
    assert [choose_region(text, "1-70") for text in ("auto", "all", "3-4")] == [Region(1, 70), None, Region(3, 4)]
    assert choose_region("auto", None) is None
