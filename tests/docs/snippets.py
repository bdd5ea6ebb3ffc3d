"""The fenced blocks of the pages, and what the comment right above each says about running it."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "conf" / "README.md",
        ROOT / "data" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if path.is_file()
]
RUN, COMPOSE, SKIP, FILE = "run", "composed only", "not run", "file"
NOTE = re.compile(r"^\s*<!-- (not run|composed only|file): (\S.*) -->$")
FENCE = re.compile(r"^( *)```(\w*)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of the page.
        line: line number of its fence.
        language: what the fence says: bash, python, yaml, text ...
        text: its lines, without the indentation of the fence.
        action: `run`, or what the comment above says: `composed only`, `not run`, `file`.
        note: the reason that the comment gives, or the path of the file that the block is.
    """

    page: Path
    line: int
    language: str
    text: str
    action: str
    note: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, i = [], 0
    while i < len(lines):
        fence = FENCE.match(lines[i])
        if fence is None:
            i += 1
            continue
        indent, language = fence.groups()
        end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == "```")
        text = "\n".join(line.removeprefix(indent) for line in lines[i + 1 : end]) + "\n"
        note = NOTE.match(lines[i - 1]) if i else None
        action, reason = note.groups() if note else (RUN, "")
        found.append(Block(page, i + 1, language, text, action, reason))
        i = end + 1
    return found
