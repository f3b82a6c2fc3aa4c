import bz2
import errno
import gzip
import io
import lzma
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from protembed.config.common import ModelConfig
from protembed.config.embed import EmbedConfig
from protembed.config.inspect_attention import AttentionConfig
from protembed.config.pretrain import PretrainConfig
from protembed.errors import ChangedInputError, ConfigError, FormatError, InputNotFoundError
from protembed.io.reading import (
    SPOOLED_STDIN,
    as_path,
    as_paths,
    check_inputs,
    default_path,
    display_name,
    follow_link,
    is_stream,
    open_input,
    read_json,
    sha256_of_file,
    sha256_of_inputs,
    unchanged_inputs,
)

CONTENT = b">a\nMKT\n" * 1000
ARCHIVERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def read(path):
    with open_input(path) as stream:
        return stream.read()


# Paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("given", ["~/foo/e.npy", Path("~/foo/e.npy")], ids=["text", "path"])
def test_a_leading_tilde_is_expanded_in_every_path_argument(home, given):
    expected = home / "foo" / "e.npy"

    assert as_path("output", given) == expected
    assert EmbedConfig(output=given).output == expected
    assert ModelConfig(model=given).model == expected
    assert PretrainConfig(valid=[given]).valid == [expected]
    assert AttentionConfig(structures=[given], sites=given).structures == [expected]
    assert as_paths("fasta", [given, "x"]) == [expected, Path("x")]


@pytest.mark.parametrize("given", ["-", "a~/b", "a/~", "./x.fasta", "/a/~b"])
def test_other_paths_stay_unchanged(home, given):
    assert as_path("output", given) == Path(given)


def test_a_tilde_with_an_unknown_user_is_a_usage_error_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$draft.fasta").touch()

    assert as_path("fasta", "~$draft.fasta") == Path("~$draft.fasta")
    with pytest.raises(ConfigError, match="no user is named 'no-such-user'") as caught:
        EmbedConfig(output=Path("~no-such-user/e.npy"))
    assert caught.value.exit_status == 2


def test_a_tilde_of_a_user_without_a_home_is_a_usage_error(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user of a container that has no name

    with pytest.raises(
        ConfigError, match=r"output is '~/e\.npy', but HOME is not set, and you have no home directory: "
    ):
        as_path("output", "~/e.npy")


@pytest.mark.parametrize("given", [3, None, b"a.fasta", ["a.fasta"]])
def test_an_argument_that_is_not_a_path_is_a_usage_error(given):
    with pytest.raises(ConfigError, match="a path is expected"):
        as_path("output", given)


@pytest.mark.parametrize("given", ["a.fasta", Path("a.fasta"), ["a.fasta"], iter([Path("a.fasta")])])
def test_one_path_and_several_are_both_a_list_of_paths(given):
    assert as_paths("fasta", given) == [Path("a.fasta")]


@pytest.mark.parametrize("given", [b"a.fasta", 3, None, [3]])
def test_anything_else_in_place_of_paths_is_a_usage_error(given):
    with pytest.raises(ConfigError, match="fasta is .*, but a path"):
        as_paths("fasta", given)


def test_an_empty_list_of_paths_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigError, match="at least one file is expected"):
        as_paths("fasta", tmp_path.glob("*.fasta"))


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


# Opening


@pytest.mark.promise(14)
def test_opening_a_missing_file_or_a_directory_is_an_input_error(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputNotFoundError, match=str(path)) as caught, open_input(path):
            pass
        assert caught.value.exit_status == 66


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("“labels.csv”", "type the path without quotation marks"),
        ("file:///home/x/labels.csv", "give the path alone, without file://"),
        (
            "C:\\Users\\Jörg\\labels.csv",
            r"this is a path of Windows: in WSL, write /mnt/c/ for C:\\, and / for each \\",
        ),
        ("Ro\u0308hre.csv", "check the path, there is 'Röhre.csv'"),
        ("labels.CSV", "check the path, there is 'labels.csv'"),
        ("label.csv", "check the path, there is 'labels.csv'"),
        ("other.csv", "check the path$"),
        ("nowhere/labels.csv", "check the path$"),
    ],
)
def test_the_error_about_a_missing_file_says_what_is_unusual_about_its_path(tmp_path, monkeypatch, name, advice):
    monkeypatch.chdir(tmp_path)
    for present in ("labels.csv", "Röhre.csv"):
        (tmp_path / present).touch()

    with pytest.raises(InputNotFoundError, match=f"No such file or directory; {advice}"):
        read(Path(name))


@pytest.mark.promise(12)
@pytest.mark.parametrize("kind", ["plain", *ARCHIVERS])
def test_an_archive_is_recognised_by_content_and_not_by_name(tmp_path, kind):
    (tmp_path / "seqs.txt").write_bytes(ARCHIVERS.get(kind, bytes)(CONTENT))

    with open_input(tmp_path / "seqs.txt") as stream:
        assert stream.read() == CONTENT


@pytest.mark.promise(12)
@pytest.mark.parametrize("kind", ARCHIVERS)
def test_a_truncated_archive_is_an_error(tmp_path, kind):
    (tmp_path / "seqs").write_bytes(ARCHIVERS[kind](CONTENT)[:-9])

    with pytest.raises(FormatError, match=r"seqs.*truncated or damaged") as caught, open_input(tmp_path / "seqs") as f:
        f.read()
    assert caught.value.exit_status == 65


@pytest.mark.parametrize("kind", ["plain", *ARCHIVERS])
def test_standard_input_is_opened_like_a_file_and_stays_open(monkeypatch, kind):
    stdin = io.BufferedReader(io.BytesIO(ARCHIVERS.get(kind, bytes)(CONTENT)))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stdin))

    with open_input(Path("-")) as stream:
        assert stream.read() == CONTENT
    assert not stdin.closed


def test_an_error_about_a_damaged_archive_on_stdin_names_stdin(monkeypatch):
    stdin = io.BufferedReader(io.BytesIO(gzip.compress(CONTENT)[:-9]))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stdin))

    with pytest.raises(FormatError, match="<stdin>"), open_input(Path("-")) as stream:
        stream.read()


def test_an_error_of_the_caller_passes_through_open_input(tmp_path):
    (tmp_path / "seqs").write_bytes(CONTENT)

    with pytest.raises(PermissionError), open_input(tmp_path / "seqs") as stream:
        raise PermissionError(13, "denied")
    assert stream.closed


class FailingDisk(io.BytesIO):
    """A file of which only the first kilobyte can be read."""

    def readinto1(self, buffer):
        if self.tell() >= 1024:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto1(memoryview(buffer)[:1024])


@pytest.mark.promise(14)
@pytest.mark.parametrize("kind", ["plain", *ARCHIVERS])
def test_a_disk_error_while_an_input_is_read_names_the_input(tmp_path, monkeypatch, kind):
    content = ARCHIVERS.get(kind, bytes)(bytes(range(256)) * 64 + random.Random(0).randbytes(9000))
    monkeypatch.setattr(Path, "open", lambda path, mode: FailingDisk(content))

    with pytest.raises(InputNotFoundError, match=r"seqs: Input/output error") as caught, open_input(Path("seqs")) as f:
        f.read()
    assert caught.value.exit_status == 66


def test_pipes_are_streams_and_missing_paths_are_not(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()

    assert all(map(is_stream, [Path("-"), tmp_path / "pipe", Path("/dev/null")]))
    assert not any(map(is_stream, [tmp_path / "file", tmp_path / "missing", tmp_path / ("x" * 300)]))


# Names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        *(("data/seqs.fasta.gz", "seqs.npy"), ("seqs", "seqs.npy"), ("-", "stdin.npy"), (".dotfile", ".dotfile.npy")),
        *(("seqs.FAA.zst", "seqs.npy"), (".fasta", ".fasta.npy"), ("labels.csv", "labels.npy"), ("x.gz", "x.npy")),
        ("GCF_000005845.2_ASM584v2_protein.faa.gz", "GCF_000005845.2_ASM584v2_protein.npy"),
        ("Homo_sapiens.GRCh38.pep.abinitio.fa.gz", "Homo_sapiens.GRCh38.pep.abinitio.npy"),
        ("uniref50.part_001.fasta", "uniref50.part_001.npy"),
    ],
)
def test_default_paths_are_named_after_the_input_in_the_current_directory(source, name):
    assert default_path(Path(source), ".npy") == Path(name)


def test_stdin_and_its_copy_are_displayed_as_stdin():
    assert display_name(Path("-")) == "<stdin>"
    assert display_name(Path("/tmp/x") / SPOOLED_STDIN) == "<stdin>"
    assert display_name(Path("a.fasta")) == "a.fasta"


# Hashing


def test_the_hash_of_a_file_is_the_sha256_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")

    # Source: FIPS 180-2, appendix B.1.
    assert sha256_of_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_hash_of_several_inputs_depends_on_their_order_and_boundaries(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "bc").write_bytes(b"bc")
    (tmp_path / "ab").write_bytes(b"ab")
    (tmp_path / "c").write_bytes(b"c")

    hashes = {sha256_of_inputs(tmp_path / name for name in pair) for pair in (("a", "bc"), ("bc", "a"), ("ab", "c"))}

    assert len(hashes) == 3


def test_inputs_with_stdin_among_them_have_no_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"a")

    assert sha256_of_inputs([tmp_path / "a", Path("-")]) is None


def test_hashing_a_missing_input_names_it(tmp_path):
    with pytest.raises(InputNotFoundError, match="missing"):
        sha256_of_inputs([tmp_path / "missing"])


# JSON


@pytest.mark.parametrize("content", [b"{", b"\xff", b""])
def test_invalid_json_is_a_value_error(tmp_path, content):
    (tmp_path / "facts.json").write_bytes(content)

    with pytest.raises(ValueError):
        read_json(tmp_path / "facts.json")


# Inputs that change


@pytest.mark.parametrize("kind", ["plain", *ARCHIVERS])
def test_a_file_that_changes_between_two_readings_is_an_error(tmp_path, kind):
    path, compress = tmp_path / "x.fasta", ARCHIVERS.get(kind, bytes)
    path.write_bytes(compress(CONTENT))

    with unchanged_inputs():
        assert read(path) == read(path) == CONTENT
        path.write_bytes(compress(CONTENT.replace(b"MKT", b"MKV", 1)))
        with pytest.raises(ChangedInputError, match=str(path)) as caught:
            read(path)

    assert caught.value.exit_status == 65
    assert read(path) != CONTENT  # outside of the block a file may change


@pytest.mark.parametrize("num_bytes", [0, 1, 54, len(CONTENT) - 1])
def test_a_file_that_is_truncated_during_its_second_reading_is_an_error(tmp_path, num_bytes):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT * 100)

    with unchanged_inputs(), pytest.raises(ChangedInputError):
        sha256_of_inputs([path])
        with open_input(path) as stream:
            stream.read(10)
            os.truncate(path, num_bytes)
            stream.read()


@pytest.mark.parametrize("size", [70, len(CONTENT) * 100 - 1, len(CONTENT) * 100 + 7])
def test_a_file_that_changes_its_size_during_its_first_reading_is_an_error(tmp_path, size):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT * 100)

    with unchanged_inputs(), pytest.raises(ChangedInputError), open_input(path) as stream:
        stream.read(10)
        os.truncate(path, size)
        stream.read()


def test_a_file_that_is_overwritten_during_its_first_reading_is_an_error_in_the_final_check(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT * 100)

    with unchanged_inputs(), pytest.raises(ChangedInputError):
        with open_input(path) as stream:
            stream.read(10)
            with path.open("r+b") as writer:
                writer.write(b">b")
            stream.read()
        check_inputs()


def test_a_partial_reading_is_not_compared(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT * 100)

    with unchanged_inputs():
        with open_input(path) as stream:
            stream.read(10)
        path.write_bytes(CONTENT)
        assert read(path) == CONTENT
        check_inputs()


def test_a_data_error_in_a_changed_file_is_reported_as_the_change(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT)

    with pytest.raises(ChangedInputError), unchanged_inputs():
        read(path)
        path.write_bytes(CONTENT[:-5])
        raise FormatError(str(path), "something is wrong", "correct it")


def test_a_data_error_in_a_touched_file_with_the_same_bytes_is_reported_unchanged(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT)

    with pytest.raises(FormatError, match="something is wrong"), unchanged_inputs():
        read(path)
        os.utime(path, ns=(0, 0))
        raise FormatError(str(path), "something is wrong", "correct it")


def test_stdin_redirected_from_a_file_that_changes_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "x.fasta"
    path.write_bytes(CONTENT * 100)
    with path.open("rb") as stream:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
        with unchanged_inputs(), pytest.raises(ChangedInputError, match="<stdin>: it changed"):
            with open_input(Path("-")) as source:
                source.read(10)
                os.truncate(path, 70)
                source.read()


def test_a_pattern_that_matches_no_file_is_named_as_a_pattern():
    sentence = r"data/\*\.fasta: No such file or directory; no file matches this pattern"
    with pytest.raises(InputNotFoundError, match=sentence), open_input(Path("data/*.fasta")):
        pass
