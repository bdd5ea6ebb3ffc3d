"""Writes docs/configuration.md: every configuration key, from the schema in splade/config/schema.py.

python scripts/write_configuration_page.py            write the page
python scripts/write_configuration_page.py --check    fail when it is not up to date
"""

import inspect
import sys
from pathlib import Path

from splade.config.keys import ENTRY, Key, allowed_values, schema_keys
from splade.config.schema import Affects, Bounds

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """<!-- Made by scripts/write_configuration_page.py from splade/config/schema.py; change that. -->
# All configuration keys

Every key, with the values it allows, its default, what depends on it, and its meaning. A key is overridden by its full
name, `config.lr=1e-5`; [configurations and presets](../conf/README.md) explains the rest. `python -m splade.TASK
--help` lists the same keys.

What is kept is used again as long as no key that *affects* it has changed. So a key that affects `search` alone leaves
trained models and indexes valid.

| affects | stands for |
|---|---|
"""
OF_AN_INDEX = """
## Keys that an index depends on

An index in `config.index_dir` stays valid until one of these changes. `config.overwrite=true` then replaces it.

| key | what counts |
|---|---|
"""


def meanings() -> list[tuple[str, str]]:
    """Return what each flag of `Affects` stands for, from its docstring."""
    lines = inspect.getdoc(Affects).partition("Attributes:")[2].strip().splitlines()
    named = [line.strip().partition(": ") for line in lines]
    return [("-" if name == "NOTHING" else name.lower(), text.rstrip(".")) for name, _, text in named]


def affected(key: Key) -> str:
    """Return the flags of a key in words."""
    return ", ".join(str(flag.name).lower() for flag in key.affects) or "-"


def shown(value: object) -> str:
    """Return a value in the notation of a configuration."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value).replace("'", "")


def row(*cells: str) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def key_rows(keys: list[Key]) -> list[str]:
    """Return the table of some keys."""
    rows = [row("key", "values", "default", "affects", "meaning"), "|---|---|---|---|---|"]
    for key in keys:
        bounds = f", {key.bounds}" if key.bounds != Bounds() else ""
        values = f"`{allowed_values(key.annotation)}`{bounds}"
        rows.append(row(f"`{key.name}`", values, f"`{shown(key.default)}`", affected(key), key.help))
    return rows


def page() -> str:
    """Return the page."""
    keys = list(schema_keys())
    lines = [*HEAD.rstrip().splitlines(), *(row(f"`{name}`", text) for name, text in meanings())]
    lines += OF_AN_INDEX.rstrip().splitlines()
    for key in keys:
        if Affects.INDEX in key.affects:
            lines.append(
                row(f"`{key.name}`", "the content of the files that it leads to" if key.names_files else "its value")
            )
    for section in dict.fromkeys(map(section_of, keys)):
        lines += ["", f"## {section}", "", *key_rows([key for key in keys if section_of(key) == section])]
    return "\n".join([*lines, ""])


def section_of(key: Key) -> str:
    """Return the heading that a key stands under: its section."""
    parts = key.name.split(".")
    if len(parts) == 1:
        return "Keys without a section"
    return f"{parts[0]}.regularizer" if ENTRY in parts else ".".join(parts[:-1])


def main() -> None:
    """Write the page, or check it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        print(f"{PAGE.relative_to(ROOT)} written")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not up to date: run python scripts/write_configuration_page.py")


if __name__ == "__main__":
    main()
