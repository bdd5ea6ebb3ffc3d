"""The one file of results: what ran, when, on which machine, under which load, with which figures.

`results.json` maps benchmark to setting to entry. An entry replaces the one of the same benchmark and setting; all
others stay. `docs/speed.md` is made from it, by `report.py`.
"""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import report
from bench_common import RESULTS, ROOT

from splade.storage import atomic

PACKAGES = ("torch", "transformers", "numpy", "numba", "h5py", "scipy", "sentence-transformers")

Entry = dict[str, Any]


def load() -> float | None:
    """Return the machine's load average over one minute, our own threads included; None where there is none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def begin(threads: int, device: str = "cpu", packages: tuple[str, ...] = ()) -> Entry:
    """Describe the run that starts now: date, commit, machine; `packages` are those of other engines.

    Raises:
        SystemExit: the installed package is another one than that of this checkout.
    """
    package = Path(atomic.__file__).resolve().parents[1]
    if package.parent != ROOT:
        raise SystemExit(f"splade comes from {package}, not from this checkout: pip install -e {ROOT}")
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit and _git("status", "--porcelain", "--", "splade", "scripts/benchmarks/*.py"):
        commit += " with changes"
    machine = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "load_before": load(),
        "python": platform.python_version(),
        "versions": {name: found for name in (*PACKAGES, *packages) if (found := _version(name)) is not None},
    }
    if device != "cpu":
        import torch

        machine["gpu"] = torch.cuda.get_device_name()
    return {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit, "machine": machine}


def save(path: Path, benchmark: str, setting: str, entry: Entry) -> None:
    """Merge an entry into the file, print its tables, and make docs/speed.md again where this is the project's file."""
    entry["machine"]["load_after"] = load()
    results = atomic.read_json(path) if path.is_file() else {}
    results.setdefault(benchmark, {})[setting] = entry
    atomic.write_json(path, results, indent=1)
    print("\n".join(report.entry_lines(benchmark, setting, entry)))
    print(f"\nin {path}: {benchmark} / {setting}")
    if path.resolve() == RESULTS:
        print(f"made {', '.join(str(made) for made in report.write(results, report.DOCS))}")


def _git(*arguments: str) -> str:
    """Return what git says about this checkout; nothing where there is no git or no repository."""
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _cpu() -> str:
    """Return the name of the processor, and the vector instructions that matter here."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if name in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *(f"({', '.join(flags)})" for _ in flags[:1])])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
