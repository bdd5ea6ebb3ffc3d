"""Part of the site's build (mkdocs.yml): takes pages in that lie outside docs/, and turns links among all of them.

Links are written for people who read the files in the repository, `../conf/README.md`; on the site that file is a page
of its own. A link to a file that is no page becomes its text alone.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "conf/README.md": "presets.md",
    "data/README.md": "toy_data.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page."""
    here = page.file.src_uri
    folder = (ROOT / SOURCES.get(here, f"docs/{here}")).parent

    def turned(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or "://" in target:
            return match.group()
        there = Path(os.path.normpath(folder / path)).relative_to(ROOT).as_posix()
        name = PAGES.get(there) or (there.removeprefix("docs/") if there.startswith("docs/") else None)
        if name is None:
            return text
        return f"{mark}[{text}]({os.path.relpath(name, os.path.dirname(here) or '.')}{hash_sign}{anchor})"

    return LINK.sub(turned, markdown)
