import dataclasses
import re
import shlex
from typing import get_type_hints

import pytest
import typer

from protembed.cli.app import app
from protembed.config.base import FORMER_NAMES, Options, configs_of, flag_name
from protembed.config.common import ConsoleConfig


def specs_of(command):
    """List the fields of the configs of a command."""
    hints = get_type_hints(command.callback.__wrapped__)
    configs = [*configs_of(hints.get("options", Options)).values(), ConsoleConfig]
    specs = [spec for config in configs for spec in dataclasses.fields(config)]
    return [spec for spec in specs if spec.name != "config" or "options" in hints]


OPTIONS_OF = {
    command.name or command.callback.__name__.replace("_", "-"): specs_of(command)
    for command in app.registered_commands
}
COMMANDS = [*OPTIONS_OF]


def test_help_names_every_command(invoke):
    text = invoke("--help").stdout

    assert all(command in text for command in COMMANDS)
    assert "--json" in invoke("models", "--help").stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("models", "join")])
def test_help_shows_panels_and_defaults(invoke, command):
    text = invoke(command, "--help").stdout

    assert "─ Device ─" in text and "─ Console ─" in text
    assert "--quiet" in text
    assert "[default: " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_advanced_options_are_in_the_last_panel(invoke, command):
    panels = re.findall(r"╭─ (.+?) ─", invoke(command, "--help").stdout)

    assert "Advanced" not in panels[:-1]
    assert (panels[-1] == "Advanced") == any(spec.metadata["advanced"] for spec in OPTIONS_OF[command])


def test_pretrain_help_shows_at_most_18_options_before_the_advanced_ones(invoke):
    others, _, _ = invoke("pretrain", "--help").stdout.partition("─ Advanced ─")

    assert 10 <= len(re.findall(r"│ --[a-z]", others)) <= 18


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_breaks_no_option_in_two(invoke, command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    text = invoke(command, "--help").stdout
    names = [flag_name(spec.name) for spec in OPTIONS_OF[command]]

    assert [name for name in names if f"{name} " not in text] == []
    assert "…" not in text


@pytest.mark.parametrize("columns", ["66", "80", "120"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_breaks_no_choice_in_two(invoke, command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)

    assert re.findall(r"<[^<>]*\|[^<>]*\n", invoke(command, "--help").stdout) == []


@pytest.mark.parametrize(("former", "current"), FORMER_NAMES.items())
def test_former_option_is_taken_for_the_current_one(invoke, former, current):
    command, spec = next((name, spec) for name, specs in OPTIONS_OF.items() for spec in specs if spec.name == current)
    flag = f"--{former.replace('_', '-')}"
    value = [] if spec.default is False else ["no such value"]

    result = invoke(command, "missing.fasta", flag, *value)

    assert result.exit_code != 0 and "No such option" not in result.stderr
    assert f"{flag} " not in invoke(command, "--help").stdout


def test_help_shows_a_default_of_zero(invoke):
    assert "[default: 0]" in invoke("pretrain", "--help").stdout


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--long-proteins", "foo", "--long-proteins is 'foo', but one of window, error, truncate, skip is expected"),
        ("--threads", "0", "--threads is 0, but a value of at least 1 is expected"),
    ],
)
def test_a_wrong_choice_and_a_value_out_of_range_are_reported_alike(invoke, option, value, sentence):
    result = invoke("embed", "missing.fasta", option, value)

    assert (result.exit_code, result.stderr) == (2, f"protembed: {sentence}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_are_valid_commands(invoke, command):
    _, _, examples = invoke(command, "--help").stdout.rpartition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]

    assert 2 <= len(lines) <= 4 and max(map(len, lines)) <= 78
    for line in lines:
        name, *arguments = shlex.split(re.sub(r"^.*?protembed |( [|>] .*)$", "", line))
        assert name == command
        typer.main.get_command(app).commands[name].make_context(name, arguments)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_a_short_name_and_shows_no_type_of_flags(invoke, command):
    arguments = [command] if command else []
    result = invoke(*arguments, "-h")

    assert (result.exit_code, result.stdout) == (0, invoke(*arguments, "--help").stdout)
    assert "<bool>" not in result.stdout and "Path" not in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_names_files_without_braces_and_repeated_dots(invoke, command):
    usage = invoke(command, "--help").output.split("Usage:")[1].split("\n\n")[0]

    assert "{" not in usage and "......" not in usage


def test_version_has_a_short_name(invoke):
    assert invoke("-V").stdout == invoke("--version").stdout != ""


def test_quiet_has_a_short_name(invoke):
    assert invoke("models", "-q").stderr == ""


@pytest.mark.parametrize(
    ("argument", "right"),
    [("—method", "--method"), ("–-method", "--method"), ("−m", "-m"), ("–method=full", "--method=full")],
)
def test_an_option_with_a_dash_of_a_word_processor_is_a_usage_error_that_names_the_right_one(invoke, argument, right):
    result = invoke("finetune", "labels.csv", argument, "frozen")

    assert result.exit_code == 2
    assert f"type {right}" in " ".join(result.stderr.replace("│", " ").split())


def test_values_of_options_may_begin_with_any_dash(invoke):
    assert "labels.csv: No such file" in invoke("finetune", "labels.csv", "--target", "–ΔG").stderr


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: "".join(command) or "all")
def test_help_of_a_narrow_terminal_is_a_list_that_cuts_no_option(invoke, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = invoke(*command, "--help").stdout
    description, _, _ = text.partition("Examples:")

    assert all(len(line) <= 40 for line in description.splitlines())
    assert "…" not in text and "╭" not in text
    names = [flag_name(spec.name) for name in command for spec in OPTIONS_OF[name]] or COMMANDS
    assert [name for name in names if not re.search(rf"{name}\b", description)] == []
