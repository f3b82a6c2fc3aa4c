"""The notebook of examples/: its code runs, and prints what it shows. As a program, this file renews its outputs.

python tests/test_notebook.py
"""

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "protembed.ipynb"
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")


def run_cells(sources):
    """Run the cells in one namespace; return what each prints, and its figures as PNG."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.show = lambda: None
    namespace, outputs = {}, []
    for source in sources:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(source, namespace)
        outputs.append((printed.getvalue(), [small_png(plt.figure(number)) for number in plt.get_fignums()]))
        plt.close("all")
    return outputs


def small_png(figure):
    """Draw a figure as PNG of 32 colours, base64."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(32).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def code_cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def printed_text(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


def run_in_a_copy(folder):
    """Run the notebook in another process, in a copy of its folder."""
    copy = Path(folder) / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("*.model"))
    command = [sys.executable, __file__, "--cells"]
    sources = json.dumps(["".join(cell["source"]) for cell in code_cells()])
    result = subprocess.run(command, input=sources, cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_prints_what_it_shows(tmp_path):
    for cell, (text, figures) in zip(code_cells(), run_in_a_copy(tmp_path), strict=True):
        shown = [output for output in cell["outputs"] if output["output_type"] == "display_data"]
        # The last digit of a number depends on the processor.
        assert NUMBER.sub("#", text) == NUMBER.sub("#", printed_text(cell))
        assert numbers(text) == pytest.approx(numbers(printed_text(cell)), rel=0.03, abs=0.015)
        assert len(figures) == len(shown)


def test_the_notebook_is_small():
    assert NOTEBOOK.stat().st_size < 100_000


def renew():
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with tempfile.TemporaryDirectory() as folder:
        outputs = run_in_a_copy(folder)
    for number, (cell, (text, figures)) in enumerate(zip(cells, outputs, strict=True), start=1):
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        shown = [
            {"data": {"image/png": png, "text/plain": ["<Figure>"]}, "metadata": {}, "output_type": "display_data"}
            for png in figures
        ]
        cell["execution_count"], cell["outputs"] = number, [*([stream] if text else []), *shown]
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--cells"]:
        print(json.dumps(run_cells(json.load(sys.stdin))))
    else:
        renew()
