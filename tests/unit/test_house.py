"""The plan of the package holds: where things live, who may import whom, how large a file may be.

The floors are the table in docs/architecture.md; `scripts/draw_architecture.py` reads them and the imports.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400
MOST_LINES_WITH_ANY = 40
NEVER_TORCH = ("evaluation", "datasets", "storage", "inverted_index", "reports", "vectors")
HEAVY = ("torch", "transformers", "numba", "hydra", "h5py", "pandas", "matplotlib", "scipy")


def script(name):
    """Import a file of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def architecture():
    return script("draw_architecture")


def test_every_room_has_a_floor(architecture):
    rooms = {architecture.room(module) for module in architecture.module_names()}
    assert rooms == {room for floor in architecture.floors() for room in floor}


def test_imports_point_down(architecture):
    floor_of = {room: i for i, rooms in enumerate(reversed(architecture.floors())) for room in rooms}
    climbing = [
        f"{module} imports {other}"
        for module, others in architecture.imports().items()
        for other in others
        if floor_of[architecture.room(other)] > floor_of[architecture.room(module)]
    ]
    assert climbing == []


def test_no_import_cycles(architecture):
    between_rooms = {}
    for source, target in architecture.room_imports():
        between_rooms.setdefault(source, set()).add(target)
    for graph in (architecture.imports(), between_rooms):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_the_picture_is_current(architecture):
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.draw(), (
        "run python scripts/draw_architecture.py"
    )


def test_the_page_of_keys_is_current():
    keys = script("write_configuration_page")
    assert keys.PAGE.read_text(encoding="utf-8") == keys.page(), "run python scripts/write_configuration_page.py"


def test_no_file_is_long(architecture):
    lines = {name: path.read_text(encoding="utf-8").count("\n") for name, path in architecture.module_names().items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_few_lines_have_any(architecture):
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in architecture.module_names().values()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\bAny\b", line) and not line.lstrip().startswith("from typing import")
    ]
    assert len(lines) <= MOST_LINES_WITH_ANY, "\n".join(lines)


def test_commands_are_a_docstring_and_one_call(architecture):
    commands = [path for path in (ROOT / "splade").glob("*.py") if architecture.is_command(path)]
    assert len(commands) >= 13
    for path in commands:
        docstring, config_import, main = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant), path
        assert ast.unparse(config_import) == "from splade.config import run_task", path
        assert isinstance(main, ast.If) and len(main.body) == 1, path
        called = re.fullmatch(r"run_task\('splade\.tasks\.(\w+)', __doc__\)", ast.unparse(main.body[0]))
        assert called is not None, path
        assert (ROOT / "splade" / "tasks" / f"{called[1]}.py").is_file(), path


def loaded_after(*modules):
    """Return the names of all modules that a fresh interpreter holds after importing some."""
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_these_rooms_never_import_torch(architecture):
    modules = [name for name in architecture.module_names() if architecture.room(name) in NEVER_TORCH]
    assert "torch" not in loaded_after(*modules)


def test_import_splade_is_light():
    assert loaded_after("splade") & set(HEAVY) == set()
