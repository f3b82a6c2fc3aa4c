from hypothesis import given, strategies as st

from protembed.cli.layout import Column, Table, join_facts, wrapped

NAMES = ["majority", "composition", "random initialisation"]
VALUES, INTERVALS = ["0.853", "-12.827", "undefined"], ["[0.754, 0.917]", "[-20.123, -3.897]", ""]
TABLE = Table(
    columns=[
        Column(name="", cells=NAMES, is_text=True),
        Column(name="proteins", cells=["1,000", "20", "3"], is_optional=True),
        *(Column(name=name, cells=VALUES, ends=INTERVALS) for name in ("accuracy", "macro F1", "MCC")),
    ]
)


def test_table_is_as_narrow_as_the_terminal_and_breaks_no_number():
    for width in range(37, 130):
        lines = TABLE.lines(width)

        assert all(len(line) <= width for line in lines)
        for value, interval in zip(VALUES, INTERVALS, strict=True):
            assert "\n".join(lines).count(f"{value} {interval}".strip()) == 3


def test_table_without_a_width_is_whole():
    first, *rows = TABLE.lines()

    assert first.split() == ["proteins", "accuracy", "macro", "F1", "MCC"]
    assert [row.split("  ")[0] for row in rows] == NAMES


def test_values_and_intervals_of_a_column_are_aligned():
    _, *rows = Table(columns=[TABLE.columns[0], TABLE.columns[2]]).lines()

    assert len({row.index("[") for row in rows[:2]}) == 1
    assert rows[0].index(" [") == rows[1].index(" [") == len(rows[2])


def test_optional_column_is_left_out_before_others_continue_below():
    assert TABLE.lines(200)[0].split()[0] == "proteins"
    assert TABLE.lines(110)[0].split()[0] == "accuracy"
    assert TABLE.lines(110) != TABLE.lines(80)
    assert sum("composition" in line for line in TABLE.lines(110)) == 1
    assert sum("composition" in line for line in TABLE.lines(80)) == 2


def test_row_becomes_a_list_where_no_column_fits_beside_its_name():
    assert TABLE.lines(36)[:4] == [
        "majority",
        "  accuracy  0.853 [0.754, 0.917]",
        "  macro F1  0.853 [0.754, 0.917]",
        "  MCC       0.853 [0.754, 0.917]",
    ]


@given(st.lists(st.text("ab ,.0123456789[]-%", min_size=1, max_size=12), max_size=20), st.integers(8, 60))
def test_wrapping_loses_nothing(words, width):
    sentence = " ".join(" ".join(words).split())

    assert wrapped(sentence, width).split() == sentence.split()


def test_wrapping_breaks_no_command_number_or_interval():
    sentence = (
        "a is better than b: +0.473 [-0.008, +0.955] MCC of 1,234 proteins after 95 % of all; next `protembed -h`"
    )
    for width in range(20, 110):
        lines = wrapped(sentence, width).splitlines()

        assert max(map(len, lines)) <= max(width, 2 + len("+0.473 [-0.008, +0.955] MCC"))
        for part in ("+0.473 [-0.008, +0.955]", "1,234 proteins", "95 %", "`protembed -h`"):
            assert any(part in line for line in lines)


def test_facts_are_broken_between_facts_only():
    facts = ["300 proteins", "69,271 residues", "0 min 05 s", "about 1 min 06 s left"]

    for width in range(22, 80):
        joined = join_facts(facts, width)
        assert max(map(len, joined.splitlines())) <= width
        assert joined.replace("\n", " ") == ", ".join(facts)
