"""Draws docs/architecture.svg: the packages of `splade`, the floors they live on, and who imports whom.

    python scripts/draw_architecture.py            write the picture
    python scripts/draw_architecture.py --check    fail when it is not up to date

The floors are the table in docs/architecture.md, the arrows are the import statements of the code, read with `ast`.
`tests/unit/test_house.py` checks the one against the other with the functions of this file.
"""

import ast
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "architecture.svg"
COMMANDS = "commands"


def module_names() -> dict[str, Path]:
    """Return the file of every module of the package, by its dotted name."""
    names = {}
    for path in sorted((ROOT / "splade").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports() -> dict[str, set[str]]:
    """Return, for every module, the modules of the package that it imports anywhere in its file."""
    modules = module_names()
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            wanted = []
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                wanted = [full if full in modules else node.module for full in inner]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run_task":
                wanted = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]  # imported when it runs
            graph[name].update(other for other in wanted if other in modules and other != name)
    return graph


def is_command(path: Path) -> bool:
    """Return whether a file is a command: one that hands over to a task."""
    return path.is_file() and "run_task(" in path.read_text(encoding="utf-8")


def room(module: str) -> str:
    """Return the room of a module: its package, its name when it is a single file, `commands`, or `splade`."""
    parts = module.split(".")
    if len(parts) == 1:
        return "splade"
    return COMMANDS if is_command(ROOT / "splade" / f"{parts[1]}.py") else parts[1]


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the top floor first, from the table in docs/architecture.md."""
    rows = re.findall(r"^\| *(\d+) *\|([^|]*)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.findall(r"`([\w.]+)`", rooms) for _, rooms in sorted(rows, key=lambda row: -int(row[0]))]


def room_imports() -> dict[tuple[str, str], int]:
    """Return how many modules of one room import from another, for each pair of rooms."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for module, others in imports().items():
        for target in {room(other) for other in others} - {room(module)}:
            counts[room(module), target] += 1
    return dict(counts)


WIDTH, BOX_HEIGHT, GAP, MARGIN = 1000, 34, 62, 20
BASE_FLOORS = 2  # the lowest ones, which everything uses: drawn without arrows
STYLE = """rect{fill:#eef2fb;stroke:#3f51b5}
text{font:14px monospace;text-anchor:middle;fill:#1a237e}
path{fill:none;stroke:#7986cb;stroke-opacity:.6;marker-end:url(#head)}
path:hover{stroke:#d81b60;stroke-opacity:1}"""
HEAD = """<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
markerUnits="userSpaceOnUse" orient="auto"><polygon points="0,0 8,4 0,8" fill="#7986cb"/></marker></defs>"""


@dataclass(frozen=True)
class Box:
    """Where a room is drawn: its left upper corner and its width."""

    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        """Horizontal centre."""
        return self.x + self.width / 2


def boxes() -> dict[str, Box]:
    """Return the place of every room: a row per floor."""
    places = {}
    for i, rooms in enumerate(floors()):
        base = i >= len(floors()) - BASE_FLOORS
        widths = [(WIDTH - 2 * MARGIN) / len(rooms) - MARGIN if base else len(name) * 8.4 + 22 for name in rooms]
        free = (WIDTH - 2 * MARGIN - sum(widths)) / (len(rooms) + 1)
        x, y = MARGIN + free, MARGIN + i * (BOX_HEIGHT + GAP)
        for name, width in zip(rooms, widths, strict=True):
            places[name] = Box(x, y, width)
            x += width + free
    return places


def curve(start: Box, end: Box) -> str:
    """Return the path of an arrow: down to a lower floor, or in a bow to a room beside."""
    bottom = start.y + BOX_HEIGHT
    if start.y == end.y:
        turn, target = f"{(start.middle + end.middle) / 2:.0f},{bottom + 18:.0f}", f"{end.middle:.0f},{bottom + 3:.0f}"
        return f"M{start.middle:.0f},{bottom:.0f} Q{turn} {target}"
    half = (bottom + end.y) / 2
    turns = f"{start.middle:.0f},{half:.0f} {end.middle:.0f},{half:.0f}"
    return f"M{start.middle:.0f},{bottom:.0f} C{turns} {end.middle:.0f},{end.y - 3:.0f}"


def draw() -> str:
    """Return the picture as SVG."""
    places = boxes()
    base = {name for rooms in floors()[-BASE_FLOORS:] for name in rooms}
    height = max(box.y for box in places.values()) + BOX_HEIGHT + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
        "<title>Packages of splade and the direction of their imports</title>",
        f"<style>{STYLE}</style>",
        HEAD,
        f'<rect width="{WIDTH}" height="{height:.0f}" style="fill:#fff;stroke:none"/>',
    ]
    for (source, target), count in sorted(room_imports().items()):
        if source in places and target in places and target not in base:
            tip = f"<title>{source} imports {target} ({count} files)</title>"
            stroke = min(4.0, 0.8 + 0.3 * count)
            lines.append(f'<path d="{curve(places[source], places[target])}" stroke-width="{stroke:.1f}">{tip}</path>')
    for name, box in places.items():
        lines.append(
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{BOX_HEIGHT}" rx="6"/>'
            f'<text x="{box.middle:.0f}" y="{box.y + 22:.0f}">{name}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Write the picture, or check it."""
    picture = draw()
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(picture, encoding="utf-8")
        print(f"{PICTURE.relative_to(ROOT)} written")
    elif not PICTURE.is_file() or PICTURE.read_text(encoding="utf-8") != picture:
        sys.exit(f"{PICTURE.relative_to(ROOT)} is not up to date: run python scripts/draw_architecture.py")


if __name__ == "__main__":
    main()
