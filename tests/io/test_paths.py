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
def test_a_first_tilde_is_the_home_folder_wherever_a_path_is_given(home, given):
    expected = home / "foo" / "e.npy"

    assert as_path("--output", given) == expected
    assert EmbedConfig(output=given).output == expected
    assert ModelConfig(model=given).model == expected
    assert PretrainConfig(valid=[given]).valid == [expected]
    assert AttentionConfig(structures=[given], sites=given).structures == [expected]
    assert as_paths("fasta", [given, "x"]) == [expected, Path("x")]


@pytest.mark.parametrize("given", ["-", "a~/b", "a/~", "./x.fasta", "/a/~b"])
def test_other_paths_stay_as_they_are(home, given):
    assert as_path("--output", given) == Path(given)


def test_the_home_of_nobody_is_refused_and_a_file_of_that_name_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$draft.fasta").touch()

    assert as_path("fasta", "~$draft.fasta") == Path("~$draft.fasta")
    with pytest.raises(ConfigError, match="no user is named 'nobody-knows'") as caught:
        EmbedConfig(output=Path("~nobody-knows/e.npy"))
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("given", [3, None, b"a.fasta", ["a.fasta"]])
def test_what_is_no_path_is_refused_in_a_sentence(given):
    with pytest.raises(ConfigError, match="a path is expected"):
        as_path("--output", given)


@pytest.mark.parametrize("given", ["a.fasta", Path("a.fasta"), b"a.fasta", 3])
def test_a_lone_path_is_no_list_of_paths(given):
    with pytest.raises(ConfigError, match="fasta is .*, but a list of paths is expected"):
        as_paths("fasta", given)


def test_a_pattern_that_matched_nothing_is_no_input(tmp_path):
    with pytest.raises(ConfigError, match="one file at least is expected"):
        as_paths("fasta", tmp_path.glob("*.fasta"))


def test_the_number_of_a_layer_is_taken_for_its_name():
    assert EmbedConfig(layer=2).layer == "2"


def test_an_output_that_is_a_link_leads_to_its_target(tmp_path):
    link, target = tmp_path / "link.npy", tmp_path / "scratch" / "real.npy"
    link.symlink_to("scratch/real.npy")
    (tmp_path / "second.npy").symlink_to("link.npy")

    assert follow_link(link) == follow_link(tmp_path / "second.npy") == target
    assert follow_link(target) == target
    assert follow_link(Path("-")) == Path("-")


def test_a_link_to_a_device_stays_for_whoever_refuses_it(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")

    assert follow_link(tmp_path / "null") == tmp_path / "null"


def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(ConfigError, match="this link leads to itself"):
        follow_link(tmp_path / "a")
