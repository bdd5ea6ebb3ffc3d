"""Links between pages and into the code lead somewhere, and paths that the pages name are there."""

import re
from pathlib import Path

import pytest
from snippets import PAGES, ROOT

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
NAMED_PATH = re.compile(r"`((?:splade|tests|scripts|conf|docs)/[\w./+-]+?)/?`")
ALL_PAGES = [*PAGES, ROOT / "CHANGELOG.md"]
OLD_NAMES = "CHANGELOG.md"


def without_code(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_paths(page):
    text = without_code(page)
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
    named = [] if page.name == OLD_NAMES else NAMED_PATH.findall(text)
    assert [path for path in named if not (ROOT / path).exists() and not is_example(path)] == []


def is_example(path: str) -> bool:
    """Return whether a path stands for the reader's own, such as `splade/tasks/NAME.py`."""
    return "NAME" in path


def test_the_readme_is_short():
    assert 110 <= len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
