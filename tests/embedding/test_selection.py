import gzip
from dataclasses import replace

import pytest

from protembed.data.fasta import ReadStatistics, SkippedRecord, read_fasta
from protembed.embedding.selection import Selection, Shard
from protembed.errors import ConfigError, FormatError, IllegalResidueError, TooLongError

WINDOWED = Selection(on_illegal="error", long_proteins="window", window_residues=1022)
SHORT = replace(WINDOWED, window_residues=4)
# Numbers of shards that divide the forty proteins evenly or unevenly, or exceed them.
TOTALS = (1, 2, 3, 7, 40, 64)


@pytest.fixture
def write_fasta(tmp_path):
    def write(sequences, name="x.fasta"):
        path = tmp_path / name
        path.write_text("".join(f">p{row} of mouse\n{sequence}\n" for row, sequence in enumerate(sequences)))
        return path

    return write


def read(selection, *paths):
    statistics = ReadStatistics()
    return list(selection.read(paths, statistics)), statistics


def read_shards(selection, total, *paths):
    return [read(replace(selection, shard=Shard(number + 1, total)), *paths) for number in range(total)]


def residues(records):
    return sum(len(record.sequence) for record in records)


# Parsing


@pytest.mark.parametrize(("text", "shard"), [("1/1", Shard(1, 1)), ("2/8", Shard(2, 8)), ("08/08", Shard(8, 8))])
def test_a_shard_is_parsed_from_its_option(text, shard):
    assert Shard.parse(text) == shard


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "0/0", "1/0", "-1/4", "1/2/3", "a/b", "1.0/2", " 1/2", "1/2\n", "٢/٨"]
)
def test_an_invalid_shard_is_a_usage_error_with_an_example(text):
    with pytest.raises(ConfigError, match=r"shard .*as in 2/8") as caught:
        Shard.parse(text)
    assert caught.value.exit_status == 2


def test_a_formatted_shard_is_parsed_back():
    assert Shard.parse(str(Shard(2, 8))) == Shard(2, 8)


# Shards


@pytest.mark.parametrize("total", TOTALS)
def test_every_record_is_in_exactly_one_shard_and_in_order(proteins_fasta, total):
    whole, _ = read(WINDOWED, proteins_fasta)

    shards = read_shards(WINDOWED, total, proteins_fasta)

    assert [record for records, _ in shards for record in records] == whole
    assert [record.row for record in whole] == list(range(40))


@pytest.mark.parametrize("total", TOTALS)
def test_shards_are_balanced_by_residues_up_to_a_protein(proteins_fasta, total):
    whole, _ = read(WINDOWED, proteins_fasta)
    longest = max(len(record.sequence) for record in whole)

    sizes = [residues(records) for records, _ in read_shards(WINDOWED, total, proteins_fasta)]

    assert max(abs(size - residues(whole) / total) for size in sizes) <= longest


def test_shards_are_balanced_by_residues_and_not_by_records(write_fasta):
    path = write_fasta(["M" * 8, "M", "M", "M", "M", "M", "M", "M", "M"])

    (first, _), (second, _) = read_shards(WINDOWED, 2, path)

    assert [record.id for record in first] == ["p0"]
    assert len(second) == 8


def test_more_shards_than_proteins_leave_some_shards_empty(write_fasta):
    shards = read_shards(WINDOWED, 5, write_fasta(["MKT", "AY"]))

    assert sorted(len(records) for records, _ in shards) == [0, 0, 0, 1, 1]


def test_shards_span_several_files_and_archives(write_fasta, tmp_path):
    first = write_fasta(["MKT"], "first.fasta")
    second = tmp_path / "second.fasta.gz"
    second.write_bytes(gzip.compress(b">q0\nM\n>q1\nMM\n"))

    shards = read_shards(WINDOWED, 2, first, second)

    assert [[record.id for record in records] for records, _ in shards] == [["p0"], ["q0", "q1"]]


@pytest.mark.parametrize("total", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "sequences",
    [
        ["M1", "MKT", "M2", "M3", "MK", "AYAYA", "M4"],
        ["MKT", "AYAYA", "M1"],
        ["M1", "AYAYA", "MKT"],
        ["M1", "AYAYA", "M2", "MK"],
        ["MKT", "AY"],
    ],
    ids=["anywhere", "last", "first", "all but one", "none"],
)
def test_a_refused_record_is_listed_in_exactly_one_shard(write_fasta, sequences, total):
    selection = replace(SHORT, on_illegal="skip", long_proteins="skip")
    path = write_fasta(sequences)
    whole, statistics = read(selection, path)

    shards = read_shards(selection, total, path)

    assert [record for records, _ in shards for record in records] == whole
    assert [refused for _, shard_report in shards for refused in shard_report.skipped] == statistics.skipped
    assert len(whole) + len(statistics.skipped) == len(sequences)


def test_every_shard_reports_the_statistics_of_the_whole_input(write_fasta):
    selection = replace(SHORT, long_proteins="truncate")
    path = write_fasta(["MXT", "AYAYA", "MKT", "BBBBBBB"])
    _, whole = read(selection, path)

    assert whole.num_truncated == 2
    assert [statistics for _, statistics in read_shards(selection, 3, path)] == [whole] * 3


def test_shards_are_balanced_by_the_residues_left_after_truncation(write_fasta):
    path = write_fasta(["M" * 100, "MKTA", "MKTA", "MKTA"])

    shards = read_shards(replace(SHORT, long_proteins="truncate"), 2, path)

    assert [len(records) for records, _ in shards] == [2, 2]


# Long proteins


def test_without_long_proteins_every_policy_reads_the_same_records(proteins_fasta):
    whole = list(read_fasta([proteins_fasta]))
    window = max(len(record.sequence) for record in whole)

    for policy in ("window", "error", "truncate", "skip"):
        records, statistics = read(replace(WINDOWED, long_proteins=policy, window_residues=window), proteins_fasta)
        assert records == whole
        assert (statistics.num_truncated, statistics.skipped) == (0, [])
        assert (statistics.num_records, statistics.num_residues) == (40, residues(whole))


def test_long_proteins_stay_whole_under_the_window_policy(write_fasta):
    records, statistics = read(SHORT, write_fasta(["MKT", "AYAYA"]))

    assert [record.sequence for record in records] == ["MKT", "AYAYA"]
    assert statistics.skipped == []


@pytest.mark.parametrize("shard", [None, Shard(1, 2)], ids=["whole", "another shard"])
def test_a_long_protein_is_an_error_under_the_error_policy_in_every_shard(write_fasta, shard):
    selection = replace(SHORT, long_proteins="error", shard=shard)

    message = r"x\.fasta, line 3: record 'p1' has 5 residues, more than the window of 4; choose `long_proteins`"
    with pytest.raises(TooLongError, match=message) as caught:
        read(selection, write_fasta(["MKTA", "AYAYA"]))
    assert caught.value.exit_status == 65


def test_a_long_protein_is_cut_off_and_counted_under_the_truncate_policy(write_fasta):
    records, statistics = read(replace(SHORT, long_proteins="truncate"), write_fasta(["MKTA", "AYAYAYA", "MK"]))

    assert [record.sequence for record in records] == ["MKTA", "AYAY", "MK"]
    assert [record.description for record in records] == ["p0 of mouse", "p1 of mouse", "p2 of mouse"]
    assert (statistics.num_truncated, statistics.num_records, statistics.num_residues) == (1, 3, 10)
    assert "1 protein cut off at the window's length" in statistics.warnings()


def test_a_long_protein_is_left_out_and_listed_under_the_skip_policy(write_fasta):
    path = write_fasta(["AYAYA", "MKTA", "M" * 1200, "MK"])

    records, statistics = read(replace(SHORT, long_proteins="skip"), path)

    assert [(record.row, record.id) for record in records] == [(0, "p1"), (1, "p3")]
    assert statistics.skipped == [
        SkippedRecord(id="p0", path=str(path), line=1, reason="5 residues are more than the window of 4"),
        SkippedRecord(id="p2", path=str(path), line=5, reason="1,200 residues are more than the window of 4"),
    ]
    assert (statistics.num_records, statistics.num_residues) == (2, 6)


@pytest.mark.parametrize("shard", [None, Shard(1, 2), Shard(2, 2)])
def test_skipping_every_protein_is_a_format_error(write_fasta, shard):
    with pytest.raises(
        FormatError, match="every record was left out, the first, 'p0', in line 1: 5 residues"
    ) as caught:
        read(replace(SHORT, long_proteins="skip", shard=shard), write_fasta(["MKTAY", "MKTAYI"]))

    assert caught.value.exit_status == 65


def test_rows_are_numbered_across_files_without_skipped_proteins(write_fasta):
    paths = [write_fasta(["AYAYA", "MK"], "a.fasta"), write_fasta(["AYAYA", "MKT"], "b.fasta")]

    records, _ = read(replace(SHORT, long_proteins="skip"), *paths)

    assert [(record.row, record.sequence) for record in records] == [(0, "MK"), (1, "MKT")]


def test_illegal_characters_are_handled_by_the_on_illegal_policy(write_fasta):
    path = write_fasta(["M1T", "MKT"])

    with pytest.raises(IllegalResidueError):
        read(WINDOWED, path)
    assert [record.sequence for record in read(replace(WINDOWED, on_illegal="mask"), path)[0]] == ["MXT", "MKT"]
    assert [record.sequence for record in read(replace(WINDOWED, on_illegal="skip"), path)[0]] == ["MKT"]
