"""Measure `protembed map`: the seconds of its steps, and how fast a browser shows and zooms the page.

Needs Chromium with its driver, and selenium:

    python benchmarks/map.py proteins.npy --projection tsne
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from selenium import webdriver

from protembed.callbacks import Callbacks
from protembed.config.map import MapOptions
from protembed.search.map import make_map

_NUM_LOADS = 3
# Zoom in for half of the frames and out again, and note how long each drawing takes, and each frame.
_ZOOM = """
const done = arguments[0], drawings = [], frames = [], draw = picture.drawNow.bind(picture);
picture.drawNow = () => { const began = performance.now(); draw(); drawings.push(performance.now() - began); };
let number = 0, last = performance.now();
(function next(now) {
  if (number) frames.push(now - last);
  last = now;
  if (number++ === 80) return done({ drawings, frames });
  picture.zoomBy(number < 40 ? 1.05 : 1 / 1.05);
  requestAnimationFrame(next);
})(last);
"""
_FIRST_PICTURE = "return performance.getEntriesByName('first picture')[0].startTime"
_WAIT = "setTimeout(arguments[0], 300)"


def draw(options: argparse.Namespace, output: Path) -> Path:
    """Make the map, print the seconds of each step beside those of its processor time, and return the page."""
    ends = [(time.monotonic(), time.process_time())]
    callbacks = Callbacks(on_progress=lambda _: ends.append((time.monotonic(), time.process_time())))
    config = MapOptions.from_values(output=output, projection=options.projection, threads=options.threads)
    summary = make_map(options.embeddings, config, callbacks)
    ends.append((time.monotonic(), time.process_time()))
    steps = ["reading and principal components", *summary.projections, "nearest proteins", "files"]
    for step, begin, end in zip(steps, ends, ends[1:], strict=False):
        print(f"{step}: {end[0] - begin[0]:.1f} s, {end[1] - begin[1]:.1f} s of processors", flush=True)
    print(f"page: {summary.page.stat().st_size / 1e6:.2f} MB, {summary.num_proteins:,} proteins")
    return summary.page


def browse(page: Path) -> None:
    """Print when the browser shows the first picture, and how long drawings and frames take while zooming."""
    browser_options = webdriver.ChromeOptions()
    browser_options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1200"):
        browser_options.add_argument(argument)
    with webdriver.Chrome(browser_options, webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        firsts = []
        for _ in range(_NUM_LOADS):
            browser.get(page.resolve().as_uri())
            browser.execute_async_script(_WAIT)
            firsts.append(browser.execute_script(_FIRST_PICTURE))
        print(f"first picture: {median(firsts):.0f} ms, median of {_NUM_LOADS}")
        for name, times in browser.execute_async_script(_ZOOM).items():
            highest = sorted(times)[int(0.95 * len(times))]
            print(f"{name} while zooming: {median(times):.1f} ms, 95 % below {highest:.1f} ms", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--projection", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", type=Path, help="measure this page alone, which was made before")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        browse(arguments.page or draw(arguments, Path(folder) / "map"))
