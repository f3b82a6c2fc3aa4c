"""Build the site from documents that are read on GitHub too.

Pages link to files of the repository by relative paths, as GitHub expects. Here documents outside `docs/` become pages
of the site, and every other file that a page links to is copied into it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Documents outside docs/, and the names of their pages.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "tutorial.md",
    "protembed/bundled/protembed_t6_8M/README.md": "bundled-model.md",
}
LINK = re.compile(r"(\]\(|src(?:set)?=\")(?!https?:|#|mailto:)([^)#\s\"]+)")
SOURCES = {page: source for source, page in PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents outside `docs/`, and the files that any page links to."""
    for source, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for file in [file for file in files if file.is_documentation_page()]:
        for target in _targets(file.content_string, _source(file.src_uri)):
            copy = _in_site(target)
            if files.get_file_from_path(copy) is None and (ROOT / target).is_file():
                files.append(File.generated(config, copy, content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point relative links at pages and copies within the site."""
    source, here = _source(page.file.src_uri), posixpath.dirname(page.file.src_uri)

    def rewrite(link: re.Match[str]) -> str:
        return link[1] + posixpath.relpath(_in_site(_resolve(link[2], source)), here or ".")

    return LINK.sub(rewrite, markdown)


def _source(page: str) -> str:
    """Return the path of a page's source within the repository."""
    if page == "index.md" and (ROOT / "docs" / page).exists():
        return "docs/index.md"
    return SOURCES.get(page, f"docs/{page}")


def _resolve(target: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _targets(markdown: str, source: str) -> Iterator[str]:
    yield from (_resolve(link[2], source) for link in LINK.finditer(markdown))


def _in_site(path: str) -> str:
    """Return where a file of the repository lies within the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PAGES.get(path, f"repository/{path}")
