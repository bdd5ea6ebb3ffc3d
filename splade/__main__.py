"""`splade TASK ...`, or `python -m splade TASK ...`: runs a task; without one, lists them all."""

import ast
import runpy
import sys
from pathlib import Path

from splade.errors import nearest

FOLDER = Path(__file__).parent


def main() -> int:
    """Run the task that the command line names; return 2 where there is no such task."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    task = sys.argv.pop(1)
    if task not in tasks():
        sys.stderr.write(f"error: no task '{task}'{nearest(task, tasks())}; `splade` alone lists them\n")
        return 2
    sys.argv[0] = str(FOLDER / f"{task}.py")
    runpy.run_module(f"splade.{task}", run_name="__main__", alter_sys=True)
    return 0


def tasks() -> dict[str, str]:
    """Return every task with the first sentence of its docstring; nothing is imported."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "import run_task\n" in source:
            first = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
            found[path.stem] = " ".join(first.split())
    return found


def overview() -> str:
    """Return the list of tasks, a line each."""
    known = tasks()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {_shortened(text, 116 - width)}" for name, text in known.items()]
    return "\n".join(
        [
            "Usage: splade TASK [KEY=VALUE ...] [GROUP=OPTION ...] [Hydra options]",
            '       splade search INDEX "a question"',
            "",
            "Tasks (`splade TASK --help` lists all keys; `python -m splade.TASK` is the same):",
            *lines,
            "",
        ]
    )


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 4].rsplit(" ", 1)[0].rstrip(",;(") + " ..."


if __name__ == "__main__":
    sys.exit(main())
