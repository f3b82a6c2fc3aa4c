"""The pages of the gallery are real, small, and safe to publish."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "gallery").glob("*.html"))
MAX_BYTES = 1_000_000


def test_gallery_shows_each_page_with_its_command_and_a_picture_in_light_and_dark():
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")

    assert len(PAGES) == 6
    for page in PAGES:
        assert f"(gallery/{page.name})" in text
        for picture in (f"{page.stem}_page.png", f"{page.stem}_page_dark.png"):
            assert f'"images/{picture}"' in text
            assert (DOCS / "images" / picture).stat().st_size < 200_000


def test_gallery_is_made_by_the_commands_that_it_shows():
    script = re.sub(r'"\$work/([^"]+)"', r"\1", (DOCS / "gallery" / "make.sh").read_text())
    commands = re.findall(r"^protembed .+", (DOCS / "gallery.md").read_text(), re.MULTILINE)

    assert len(commands) == 7
    for command in commands:
        assert re.sub(r" -o \S+$", "", command) in script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_of_the_gallery_needs_no_network_and_contains_no_path(page):
    text = page.read_text(encoding="utf-8")

    assert len(text.encode()) < MAX_BYTES
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\((?!data:|#)", text)
    assert not re.search(r"/(?:tmp|home|root|Users|work)/", text)
