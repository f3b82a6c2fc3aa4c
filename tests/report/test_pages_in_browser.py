"""Every kind of page in a real browser: Debian's chromium and chromium-driver, with selenium and axe-core.

The environment variable AXE_CORE names axe.min.js of npm's package axe-core, from 4.8 on, which knows `color-mix`.
"""

import base64
import csv
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from protembed.attention.inspect_attention import inspect_attention
from protembed.config.common import DEFAULT_MODEL
from protembed.config.embed import EmbedOptions
from protembed.config.finetune import FinetuneOptions
from protembed.config.inspect_attention import AttentionOptions
from protembed.config.map import MapOptions
from protembed.config.pretrain import PretrainOptions
from protembed.config.score import ScoreOptions
from protembed.data.structures import read_chains
from protembed.embedding.embed import embed_fasta
from protembed.evaluation.intervals import MetricWithInterval
from protembed.finetuning.finetune import finetune_model
from protembed.pretraining.pretrain import pretrain_model
from protembed.report.figures import inline_svg
from protembed.report.page import Card, Details, Figure, Page, Section, render_page
from protembed.report.table import Column, Table
from protembed.scoring.scan import scan_proteins
from protembed.search.map import make_map

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="there is no chromium with its driver"
)

TESTS = Path(__file__).parents[1]
EXAMPLES = TESTS.parent / "examples"
# The last is that of a window of 640 pixels at twice the size of letters.
WIDTHS = (1400, 900, 400, 320)
# An identifier can be as long as this, and has no place to break.
LONG = "L" * 500


def axe_core():
    if not (path := os.environ.get("AXE_CORE")):
        pytest.skip("AXE_CORE names no axe.min.js")
    return Path(path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        yield browser


def write_table(path, label_of):
    """Write the first 400 proteins of the examples with a label each."""
    with open(EXAMPLES / "signal_peptides.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row for row in rows if row["split"] == "train"][:200] + [row for row in rows if row["split"] == "test"][
        :120
    ]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "sequence", "label", "split"])
        table.writerows([row["id"], row["sequence"], label_of(row), row["split"]] for row in chosen)


write_classes = partial(write_table, label_of=lambda row: row["label"])
write_values = partial(write_table, label_of=lambda row: f"{row['sequence'].count('L') / len(row['sequence']):.4f}")
write_lists = partial(
    write_table, label_of=lambda row: ";".join(letter for letter in "WCHK" if letter in row["sequence"][:30]) or "none"
)


def sample_page():
    rng = np.random.default_rng(0)
    with inline_svg(7, 3) as inline:
        inline.figure.subplots().plot(rng.normal(size=30), "o-")
    metric = MetricWithInterval(value=0.5, low=0.25, high=0.75)
    heads = [Column(name=name, cells=list(range(40))) for name in ("layer", "head")]
    numbers = [
        Column(name=f"column {index}", cells=list(rng.normal(size=40)), shade="diverging") for index in range(20)
    ]
    metrics = [
        Column(name="predictor", cells=["=k-mers", "frozen"]),
        Column(name="MCC", cells=[metric, 0.25], best="high"),
    ]
    return Page(
        title="Signal peptides",
        command="finetune",
        facts={"Command": "protembed finetune labels.csv", "Model": "protembed_t6_8M", "Input": "labels.csv"},
        summary=["It finds 51 of 56.", "That is better than every baseline."],
        cards=[Card(name="MCC", value="0.833", note="0.731 to 0.899")],
        sections=[
            Section(
                title="Comparison",
                body=[
                    Figure(
                        picture=inline.markup,
                        caption=f"Look at {LONG}.",
                        description="A curve that rises",
                        title="Curve",
                    ),
                    Table(title="Metrics", note=f"Of {LONG}", columns=metrics, row_kinds=["few", "model"]),
                ],
            ),
            Section(
                title="Heads",
                body=[
                    Table(title="All heads", columns=[*heads, *numbers], num_fixed=2),
                    Details(title=f"More on {LONG}", body=[f"A sentence on {LONG}."]),
                ],
            ),
        ],
        notes=[f"A note on {LONG}."],
    )


def finetuning_page(model, output, task):
    write = {"classification": write_classes, "multilabel": write_lists, "regression": write_values}[task]
    table = output.with_suffix(".csv")
    write(table)
    finetune_model(table, FinetuneOptions.from_values(model=model, output=output, method="frozen", task=task))
    return output / "report.html"


def pretraining_page(model, output):
    """Train the bundled model a little more, which has learned enough for all parts of the page."""
    options = PretrainOptions.from_values(
        output=output, init_from=DEFAULT_MODEL, steps=4, validate_every=2, learning_rate=1e-5, batch_tokens=1024
    )
    pretrain_model(EXAMPLES / "proteins.fasta", options)
    return output / "report.html"


def embedding_page(model, output, **options):
    """Embed the first proteins of the examples, one of them twice, in windows, with a report."""
    fasta = output.with_suffix(".fasta")
    records = (EXAMPLES / "proteins.fasta").read_text(encoding="utf-8").split(">")[1:41]
    fasta.write_text("".join(f">{record}" for record in [*records, records[0], "bad\nMK1\n"]), encoding="utf-8")
    values = {"model": model, "output": output.with_suffix(".h5"), "report": True, "window_residues": 100}
    summary = embed_fasta(fasta, EmbedOptions.from_values(on_illegal="skip", **values, **options))
    return summary.report


def attention_page(model, output):
    """Compare with structures and sites, so that all parts of the page are there."""
    structures = TESTS / "data" / "fixtures" / "structures"
    chains = [read_chains(path)[0] for path in sorted(structures.glob("*.gz"))]
    proteins, sites = output.with_suffix(".fasta"), output.with_suffix(".tsv")
    proteins.write_text("".join(f">p{number}\n{chain.sequence}\n" for number, chain in enumerate(chains)))
    sites.write_text("protein\tposition\tlabel\np0\t5\tbinding\np1\t7\tbinding\n")
    options = AttentionOptions.from_values(
        model=model, output=output, structures=[structures], sites=sites, num_permutations=100
    )
    inspect_attention(proteins, options)
    return output / "report.html"


def map_page(model, output):
    """Draw the first proteins of the examples, with classes of which one has a long name, and their sequences."""
    fasta, labels = output.with_suffix(".fasta"), output.with_suffix(".csv")
    records = (EXAMPLES / "proteins.fasta").read_text(encoding="utf-8").split(">")[1:121]
    fasta.write_text("".join(f">{record}" for record in records), encoding="utf-8")
    rows = [
        f"{record.split()[0]},{LONG if number % 3 else number % 5},{number / 7}"
        for number, record in enumerate(records)
    ]
    labels.write_text("\n".join(["id,family,mass", *rows]) + "\n", encoding="utf-8")
    embed_fasta(fasta, EmbedOptions.from_values(model=model, output=output.with_suffix(".npy")))
    return make_map(
        output.with_suffix(".npy"), MapOptions.from_values(output=output, labels=labels, sequences=fasta)
    ).page


def scan_page(model, output):
    """Scan proteins, one of them with an X and measured values, so that all parts of the page are there."""
    proteins, table = output.with_suffix(".fasta"), output.with_suffix(".csv")
    proteins.write_text(">p1\nMKTAYXAKQRQISFVKSHFS\n>p2\nMSILVTRPSPAGEELVSRLR\n")
    positions = [(letter, number) for number, letter in enumerate("MKTAYXAKQRQISFVKSHFS", 1) if letter not in "XW"]
    rows = [f"p1,{letter}{number}W,{number % 7}" for letter, number in positions]
    table.write_text("\n".join(["id,mutant,DMS_score", *rows]) + "\n")
    scan_proteins(proteins, ScoreOptions.from_values(model=model, output=output, scan=True, measurements=table))
    return output / "report.html"


# The kinds of pages, and what makes each from the directory of a tiny model and the path of a result.
PAGES = {
    "classification": partial(finetuning_page, task="classification"),
    "multilabel": partial(finetuning_page, task="multilabel"),
    "regression": partial(finetuning_page, task="regression"),
    "pretraining": pretraining_page,
    "attention": attention_page,
    "scan": scan_page,
    "vectors": embedding_page,
    "vectors per residue": partial(embedding_page, per_residue=True),
    "map": map_page,
}


@pytest.fixture(scope="module", params=["sample", *PAGES])
def page(request, tiny_model, tmp_path_factory):
    """Write one page of each kind."""
    directory = tmp_path_factory.mktemp("page")
    if request.param != "sample":
        return PAGES[request.param](tiny_model, directory / "result")
    path = directory / "report.html"
    path.write_text(render_page(sample_page()), encoding="utf-8")
    return path


def open_page(browser, path, *, width=1400, theme="light"):
    preference = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preference})
    metrics = {"width": width, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())


def style(browser, selector, name):
    return browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])", selector, name
    )


def test_page_logs_no_error_and_requests_nothing_else(browser, page):
    browser.get_log("browser"), browser.get_log("performance")
    open_page(browser, page)

    requests = [entry for entry in browser.get_log("performance") if "Network.requestWillBeSent" in entry["message"]]
    assert browser.get_log("browser") == []
    assert all('"url":"file://' in entry["message"] or '"url":"data:' in entry["message"] for entry in requests)


@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (900, "dark"), (400, "light"), (400, "dark")])
def test_page_has_no_accessibility_violation(browser, page, width, theme):
    open_page(browser, page, width=width, theme=theme)
    browser.execute_script(axe_core())

    result = browser.execute_async_script("axe.run().then(arguments[0])")

    assert [(violation["id"], violation["nodes"][0]["html"]) for violation in result["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in result["passes"]}


@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_not_wider_than_the_window(browser, page, width):
    open_page(browser, page, width=width)

    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_button_switches_between_light_and_dark(browser, page):
    open_page(browser, page, theme="dark")
    dark = style(browser, "body", "background-color")

    browser.find_element("id", "theme").click()
    light = style(browser, "body", "background-color")

    assert (dark, light) == ("rgb(22, 23, 26)", "rgb(255, 255, 255)")
    assert browser.find_element("id", "theme").text == "Dark"


def test_print_is_light_and_shows_what_can_be_opened(browser, page):
    open_page(browser, page, theme="dark")

    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    clipped = browser.execute_script(
        "return [...document.querySelectorAll('.tall')].filter(box => box.scrollHeight > box.clientHeight + 1).length"
    )

    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    assert style(browser, "body", "background-color") == "rgb(255, 255, 255)"
    assert clipped == 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_every_control_is_reached_by_the_tab_key_and_has_a_name(browser, page):
    open_page(browser, page)
    controls = browser.find_elements("css selector", "button, select, summary, nav a")
    visible = [control for control in controls if control.is_displayed() and control.is_enabled()]

    reached = set()
    for _ in range(4 * len(controls) + 20):
        webdriver.ActionChains(browser).send_keys("\ue004").perform()
        reached.add(browser.switch_to.active_element.id)

    assert {control.id for control in visible if control.get_attribute("tabindex") != "-1"} <= reached
    assert all(control.accessible_name for control in visible)


def test_page_without_scripts_has_its_tables_and_no_control_without_effect(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, page)
        shown = [
            control for control in browser.find_elements("css selector", "button, select") if control.is_displayed()
        ]
        assert (shown, browser.find_element("css selector", ".table table").is_displayed()) == ([], True)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_table_sorts_by_a_column_in_both_directions_and_has_the_same_columns_in_each_row_of_its_tsv(browser, page):
    open_page(browser, page)
    table = browser.find_element("css selector", ".table table:not(.matrix)")
    first = "return [...arguments[0].tBodies[0].rows[0].cells].findIndex(cell => cell.dataset.values)"
    column = browser.execute_script(first, table)
    header = table.find_elements("css selector", "thead button")[column]

    header.click()
    ascending = browser.execute_script(
        "return valuesOf(arguments[0].tBodies[0].rows[0].cells[arguments[1]])", table, column
    )
    header.click()
    descending = browser.execute_script(
        "return valuesOf(arguments[0].tBodies[0].rows[0].cells[arguments[1]])", table, column
    )

    assert float(ascending[0]) <= float(descending[0])
    assert table.find_element("css selector", "[aria-sort=descending]").text.strip("↓ ")
    tsv = browser.execute_script("return asTsv(arguments[0])", table)
    assert len({line.count("\t") for line in tsv.rstrip("\n").split("\n")}) == 1


def test_names_of_columns_have_no_boxes_on_paper_where_repeated_headers_would_lack_them(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render_page(sample_page()), encoding="utf-8")
    open_page(browser, path)

    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    displayed = style(browser, "thead th button", "display")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    assert displayed == "contents"


def test_sample_table_is_saved_with_intervals_and_without_formulas(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render_page(sample_page()), encoding="utf-8")
    open_page(browser, path)

    tsv = browser.execute_script("return asTsv(document.querySelector('.table table'))")

    assert tsv == "predictor\tMCC\tMCC low\tMCC high\n'=k-mers\t0.5\t0.25\t0.75\nfrozen\t0.25\t\t\n"
