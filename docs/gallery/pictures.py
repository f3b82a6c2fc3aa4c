"""Take the pictures of the pages of the gallery, in light and in dark, with chromium, its driver and selenium."""

import io
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from selenium import webdriver

GALLERY = Path(__file__).parent
_NUM_COLOURS = 256


class Picture(NamedTuple):
    """What a picture shows of a page: its size in pixels, and what is done on the page before."""

    width: int
    height: int
    script: str = ""


# One head of the bundled model gives most of its attention in BPTI to the six cysteines.
_SHOW_CYSTEINE_HEAD = """
for (const [name, value] of [["layer", "5"], ["head", "6"]]) {
  const choice = document.getElementById(name);
  choice.value = [...choice.options].find(option => option.text === value).value;
  choice.dispatchEvent(new Event("change", { bubbles: true }));
}
document.getElementById("what-each-head-attends-to").scrollIntoView();
"""
_SHOW_FIRST_SECTION = 'document.querySelector("h2").scrollIntoView();'
PICTURES = {
    "finetune": Picture(1120, 1080),
    "attention": Picture(1160, 1050, _SHOW_CYSTEINE_HEAD),
    "pretrain": Picture(1120, 1240),
    "embed": Picture(1120, 1060),
    "scan": Picture(1160, 1050, _SHOW_FIRST_SECTION),
    "map": Picture(1160, 1000, "choose({ protein: 0 });" + _SHOW_FIRST_SECTION),
}


def take_picture(browser: webdriver.Chrome, page: Path, picture: Picture, theme: str) -> bytes:
    """Take a picture of a page, as a PNG of few colours."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": picture.width, "height": picture.height, "deviceScaleFactor": 1, "mobile": False},
    )
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    browser.execute_async_script(
        f"{picture.script}; const done = arguments[0]; setTimeout(done, 1000)"  # the maps are drawn when they are seen
    )
    stream = io.BytesIO()
    with Image.open(io.BytesIO(browser.get_screenshot_as_png())) as image:
        few = image.convert("RGB").quantize(_NUM_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(stream, "PNG", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as chrome:
        for name in sys.argv[1:] or PICTURES:
            for theme, ending in (("light", ""), ("dark", "_dark")):
                png = take_picture(chrome, GALLERY / f"{name}.html", PICTURES[name], theme)
                (GALLERY.with_name("images") / f"{name}_page{ending}.png").write_bytes(png)
