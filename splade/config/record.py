"""What is saved with every run, so that it can be repeated: config, versions, git state, command line."""

import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import OmegaConf

from splade.config.files import read_yaml
from splade.config.schema import Experiment
from splade.config.validate import to_experiment
from splade.storage.atomic import write_json, write_text

PACKAGE = Path(__file__).resolve().parents[1]
CONFIG_FILE, RECORD_FOLDER = "config.yaml", "run_info"
PACKAGES = (
    "splade",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "numba",
    "h5py",
    "hydra-core",
    "omegaconf",
    "pytrec_eval-terrier",
    "beir",
)


def save_config(experiment: Experiment, folder: Path) -> None:
    """Write the whole composed config to `folder/config.yaml`; it can be given as SPLADE_CONFIG_FULLPATH."""
    write_text(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(asdict(experiment))))


def read_config(folder: Path) -> Experiment:
    """Read what `save_config` wrote.

    Raises:
        ConfigError: the file is missing, or not a configuration of this toolkit.
    """
    return to_experiment(read_yaml(folder / CONFIG_FILE))


def save_record(experiment: Experiment, folder: Path, task: str) -> None:
    """Write `folder/run_info/<task>.json`: config, package versions, git state, command line, machine and time."""
    record = {
        "task": task,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"splade.{task}", *sys.argv[1:]]),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("SPLADE_")},
        "versions": {"python": platform.python_version(), **package_versions()},
        "git": git_state(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
        "config": asdict(experiment),
    }
    write_json(folder / RECORD_FOLDER / f"{task}.json", record)


def package_versions() -> dict[str, str]:
    """Return the installed version of every package that matters for results."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def git_state(folder: Path = PACKAGE) -> dict[str, object] | None:
    """Return commit and whether there are uncommitted changes, or None outside a git checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return {"commit": commit, "uncommitted_changes": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
