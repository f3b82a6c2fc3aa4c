import bz2
import gzip
import io
import lzma
import random
import sys
from functools import partial
from pathlib import Path

import pytest
from Bio import bgzf

from protembed.data.fasta import ReadStatistics, read_fasta
from protembed.errors import DamagedArchiveError, DataError, FormatError, IllegalResidueError, RecordError
from protembed.io.reading import open_input

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HOSTILE = Path(__file__).parents[1] / "data" / "hostile"
TWO_PROTEINS = b">first one\nMKTAYIAKQR\n>second\nGSHMLEDPV\n"
COMPRESS = {
    "gz": partial(gzip.compress, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: True}),
}
MAGIC = {"gz": 2, "bz2": 3, "xz": 6, "zst": 4}
# Indices of bytes that no checksum covers. gzip: flags without a meaning for readers, time, hint, system, and the
# unused bits of the last byte of the data. bzip2 (not listed): the block size, and entries of absent letters.
UNCOVERED = {"gz": {3, 4, 5, 6, 7, 8, 9, -9}, "xz": set()}

archived = pytest.mark.parametrize("kind", COMPRESS)


@pytest.fixture
def read(tmp_path):
    """Write bytes to a file, and read its proteins."""

    def write_and_read(content, **options):
        path = tmp_path / "proteins"
        path.write_bytes(content)
        return [(record.description, record.sequence) for record in read_fasta([path], **options)]

    return write_and_read


@pytest.fixture(scope="module")
def many():
    """Random proteins, which compress badly: as FASTA, and as (identifier, sequence)."""
    rng = random.Random(0)
    proteins = [(f"p{row}", "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=200))) for row in range(250)]
    return "".join(f">{name}\n{sequence}\n" for name, sequence in proteins).encode(), proteins


def blocked(content, size=1000):
    """Compress into BGZF blocks of `size` bytes; return them with the empty end block."""
    blocks, written = [], io.BytesIO()
    writer = bgzf.BgzfWriter(fileobj=written)
    for start in range(0, len(content), size):
        writer.write(content[start : start + size])
        writer.flush()
        blocks.append(written.getvalue())
        written.seek(0)
        written.truncate()
    return [*blocks, bgzf._bgzf_eof]


# Truncated


@pytest.mark.promise(12)
@archived
def test_every_cut_of_a_small_archive_is_an_error_that_counts_the_records(read, kind):
    archive = COMPRESS[kind](TWO_PROTEINS)
    counts = []

    for length in range(MAGIC[kind], len(archive)):
        with pytest.raises(
            DamagedArchiveError, match=r"truncated or damaged .*, whole records before that: \d;"
        ) as caught:
            read(archive[:length])
        counts.append(caught.value.num_records)

    assert counts == sorted(counts)
    assert counts[0] == 0
    # A record is complete only where the next one begins or the file ends.
    assert counts[-1] == 1


@pytest.mark.promise(12)
@archived
def test_an_archive_cut_within_its_magic_bytes_is_a_format_error(read, kind):
    for length in range(MAGIC[kind]):
        with pytest.raises(FormatError):
            read(COMPRESS[kind](TWO_PROTEINS)[:length])


@pytest.mark.promise(12)
@archived
def test_two_hundred_cuts_of_a_large_archive_are_errors_that_count_the_records(tmp_path, many, kind):
    content, proteins = many
    archive = COMPRESS[kind](content)
    path = tmp_path / "proteins"

    for cut in range(200):
        path.write_bytes(archive[: MAGIC[kind] + cut * (len(archive) - MAGIC[kind]) // 200])
        seen = []
        with pytest.raises(DamagedArchiveError) as caught:
            for record in read_fasta([path]):
                seen.append((record.id, record.sequence))
        assert caught.value.num_records == len(seen) < len(proteins)
        assert seen == proteins[: len(seen)]


def test_the_record_count_of_a_damaged_archive_includes_skipped_records_and_excludes_other_files(tmp_path, many):
    (tmp_path / "whole").write_bytes(TWO_PROTEINS)
    content = b">odd\nMK1\n" + many[0]
    (tmp_path / "cut").write_bytes(gzip.compress(content)[: len(content) // 4])
    statistics = ReadStatistics()

    with pytest.raises(DamagedArchiveError) as caught:
        list(read_fasta([tmp_path / "whole", tmp_path / "cut"], on_illegal="skip", statistics=statistics))

    assert len(statistics.skipped) == 1
    assert caught.value.num_records == statistics.num_records + 1 - 2 > 30


# Damaged


@pytest.mark.promise(12)
@archived
def test_every_flipped_bit_of_an_archive_is_an_error_or_changes_nothing(read, kind):
    archive = COMPRESS[kind](b">a\nMKTAYIAK\n")
    undetected = set()

    for bit in range(8 * len(archive)):
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert read(damaged) == [("a", "MKTAYIAK")]
            undetected.add(bit // 8)
        except FormatError as error:
            # A damaged archive is always reported as one, unless its magic bytes are damaged.
            assert isinstance(error, DamagedArchiveError) or bit // 8 < MAGIC[kind]

    if kind in UNCOVERED:
        assert undetected == {index % len(archive) for index in UNCOVERED[kind]}
    assert len(undetected) <= 8


@pytest.mark.promise(12)
@archived
def test_a_large_archive_with_a_flipped_bit_is_an_error(read, many, kind):
    archive = COMPRESS[kind](many[0])
    rng = random.Random(1)

    for _ in range(15):
        damaged = bytearray(archive)
        damaged[rng.randrange(100, len(archive) - 100)] ^= 1 << rng.randrange(8)
        for on_illegal in ("error", "mask"):
            with pytest.raises(DamagedArchiveError):
                read(damaged, on_illegal=on_illegal)


def test_an_illegal_residue_in_an_intact_archive_is_reported_as_such(read):
    for kind in COMPRESS:
        with pytest.raises(IllegalResidueError):
            read(COMPRESS[kind](b">a\nMK1\n" + TWO_PROTEINS))


# Blocked gzip


@pytest.mark.promise(12)
def test_blocked_gzip_cut_between_any_two_blocks_is_an_error(read, many):
    blocks = blocked(many[0], size=10_000)
    assert read(b"".join(blocks)) == many[1]

    for number in range(1, len(blocks)):
        with pytest.raises(DamagedArchiveError, match=r"the block that ends BGZF is missing\), whole records before"):
            read(b"".join(blocks[:number]))


@pytest.mark.promise(12)
def test_blocked_gzip_cut_anywhere_is_an_error(read):
    archive = b"".join(blocked(TWO_PROTEINS, size=15))

    for length in range(MAGIC["gz"], len(archive)):
        with pytest.raises(DamagedArchiveError):
            read(archive[:length])


@pytest.mark.promise(12)
def test_concatenated_blocked_files_are_read_to_the_end(read):
    first, second = (b"".join(blocked(part, size=9)) for part in (TWO_PROTEINS[:22], TWO_PROTEINS[22:]))

    assert read(first + second) == read(TWO_PROTEINS)


@pytest.mark.promise(12)
def test_a_blocked_file_from_an_interrupted_download_is_an_error():
    with pytest.raises(DamagedArchiveError) as caught:
        list(read_fasta([HOSTILE / "bgzf_cut_between_blocks.fasta.gz"]))

    assert caught.value.num_records < 8


def test_a_missing_end_block_is_an_error_in_every_input(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"".join(blocked(b"sequence,target\nMKT,1\n")[:-1]))

    with pytest.raises(DamagedArchiveError, match="BGZF"), open_input(tmp_path / "labels.csv") as stream:
        stream.read()


@pytest.mark.promise(12)
def test_blocked_and_plain_gzip_in_one_file_are_read_in_any_order(read):
    blocks, plain = blocked(TWO_PROTEINS[:27], size=9), gzip.compress(TWO_PROTEINS[27:])
    whole = read(TWO_PROTEINS)

    assert read(b"".join(blocks) + plain) == whole
    assert read(b"".join(blocks[:-1]) + plain) == whole
    assert read(gzip.compress(TWO_PROTEINS[:27]) + b"".join(blocked(TWO_PROTEINS[27:], size=9))) == whole


@pytest.mark.promise(12)
def test_blocked_gzip_cut_between_blocks_is_an_error_behind_plain_gzip_too(read):
    blocks = blocked(TWO_PROTEINS[27:], size=9)

    with pytest.raises(DamagedArchiveError, match="BGZF"):
        read(gzip.compress(TWO_PROTEINS[:27]) + b"".join(blocks[:-1]))


def test_zero_bytes_behind_gzip_are_padding(read):
    assert read(gzip.compress(TWO_PROTEINS) + bytes(70_000)) == read(TWO_PROTEINS)


# zstd

SKIPPABLE_FRAME = b"\x5a\x2a\x4d\x18\x04\0\0\0" + b"size"


@pytest.mark.promise(12)
def test_all_frames_of_zstd_are_read_and_skippable_ones_are_skipped(read):
    first, second = (COMPRESS["zst"](part) for part in (TWO_PROTEINS[:22], TWO_PROTEINS[22:]))
    whole = read(TWO_PROTEINS)

    assert read(first + second) == whole
    assert read(SKIPPABLE_FRAME + first + SKIPPABLE_FRAME + second + SKIPPABLE_FRAME) == whole


def test_zstd_that_refers_back_by_two_gigabytes_is_read(read):
    options = {zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = zstd.ZstdCompressor(options=options)

    assert read(compressor.compress(TWO_PROTEINS) + compressor.flush()) == read(TWO_PROTEINS)


def test_zstd_without_its_package_is_an_error_that_says_how_to_install_it(read, monkeypatch):
    for name in ("backports", "compression"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(FormatError, match=r"a zstd archive, .* install one \(`pip install 'protembed\[zstd\]'`"):
        read(COMPRESS["zst"](TWO_PROTEINS))


# Overwritten


@pytest.mark.promise(15)
@pytest.mark.parametrize("on_illegal", ["error", "mask", "skip"])
def test_nul_bytes_are_errors_with_line_and_column_under_every_policy(on_illegal):
    with pytest.raises(IllegalResidueError, match=r"'\\x00' in column \d+ of record .* binary or damaged") as caught:
        list(read_fasta([HOSTILE / "zeros_in_a_sequence.fasta"], on_illegal=on_illegal))
    assert (caught.value.line, caught.value.column) == (6, column_of_nul("zeros_in_a_sequence.fasta", line=6))

    with pytest.raises(RecordError, match=r"line 7: record 4 has a NUL byte in column \d+ of its header") as caught:
        list(read_fasta([HOSTILE / "zeros_in_a_header.fasta"], on_illegal=on_illegal))
    assert f"column {column_of_nul('zeros_in_a_header.fasta', line=7)} " in str(caught.value)


def column_of_nul(name, line):
    return (HOSTILE / name).read_bytes().split(b"\n")[line - 1].index(b"\0") + 1


def test_a_damaged_archive_is_a_data_error_with_status_65():
    assert issubclass(DamagedArchiveError, DataError)
    assert DamagedArchiveError.exit_status == 65


@pytest.mark.promise(12)
def test_xz_padding_of_a_multiple_of_four_bytes_is_valid(read):
    first, second = (lzma.compress(record) for record in (b">a\nMKT\n", b">b\nAYI\n"))
    both = [("a", "MKT"), ("b", "AYI")]

    assert read(first + bytes(4)) == both[:1]
    assert read(first + bytes(8) + second + bytes(1 << 21)) == both
    for damaged in (first + bytes(3), first + bytes(6) + second):
        with pytest.raises(DamagedArchiveError, match="padding is not a multiple of four"):
            read(damaged)
