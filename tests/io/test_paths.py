from pathlib import Path

import pytest

from protembed.config.common import ModelConfig
from protembed.config.embed import EmbedConfig
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.pretrain import PretrainConfig
from protembed.errors import ConfigError
from protembed.io.reading import as_path, as_paths, follow_link


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("given", ["~/foo/e.npy", Path("~/foo/e.npy")], ids=["text", "path"])
def test_a_leading_tilde_is_expanded_in_every_path_argument(home, given):
    expected = home / "foo" / "e.npy"

    assert as_path("--output", given) == expected
    assert EmbedConfig(output=given).output == expected
    assert ModelConfig(model=given).model == expected
    assert PretrainConfig(valid=[given]).valid == [expected]
    assert AttentionConfig(structures=[given], sites=given).structures == [expected]
    assert as_paths("fasta", [given, "x"]) == [expected, Path("x")]


@pytest.mark.parametrize("given", ["-", "a~/b", "a/~", "./x.fasta", "/a/~b"])
def test_other_paths_stay_unchanged(home, given):
    assert as_path("--output", given) == Path(given)


def test_a_tilde_with_an_unknown_user_is_a_usage_error_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$draft.fasta").touch()

    assert as_path("fasta", "~$draft.fasta") == Path("~$draft.fasta")
    with pytest.raises(ConfigError, match="no user is named 'nobody-knows'") as caught:
        EmbedConfig(output=Path("~nobody-knows/e.npy"))
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("given", [3, None, b"a.fasta", ["a.fasta"]])
def test_an_argument_that_is_not_a_path_is_a_usage_error(given):
    with pytest.raises(ConfigError, match="a path is expected"):
        as_path("--output", given)


@pytest.mark.parametrize("given", ["a.fasta", Path("a.fasta"), b"a.fasta", 3])
def test_a_single_path_in_place_of_a_list_is_a_usage_error(given):
    with pytest.raises(ConfigError, match="fasta is .*, but a list of paths is expected"):
        as_paths("fasta", given)


def test_an_empty_list_of_paths_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigError, match="at least one file is expected"):
        as_paths("fasta", tmp_path.glob("*.fasta"))


def test_a_layer_may_be_given_as_an_integer():
    assert EmbedConfig(layer=2).layer == "2"


def test_following_an_output_that_is_a_link_returns_its_target(tmp_path):
    link, target = tmp_path / "link.npy", tmp_path / "scratch" / "real.npy"
    link.symlink_to("scratch/real.npy")
    (tmp_path / "second.npy").symlink_to("link.npy")

    assert follow_link(link) == follow_link(tmp_path / "second.npy") == target
    assert follow_link(target) == target
    assert follow_link(Path("-")) == Path("-")


def test_following_a_link_to_a_device_returns_the_link(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")

    assert follow_link(tmp_path / "null") == tmp_path / "null"


def test_a_link_that_leads_to_itself_is_a_usage_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(ConfigError, match="this link leads to itself"):
        follow_link(tmp_path / "a")
