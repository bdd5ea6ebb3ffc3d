"""What differs between the jobs of a sweep (`--multirun`), so that each job can have a folder of its own."""

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode

from splade.config.identity import affects_of
from splade.config.schema import Affects

MODEL_KEY, DATASET_KEY = "init_dict.model_type_or_dir", "beir.dataset"
_LONGEST_NAME = 100


def swept_values(arguments: Sequence[str] | None = None) -> dict[str, str]:
    """Return key to value of this job, for the keys that take several values in the running sweep.

    Args:
        arguments: command line of the sweep; None: the process's own.

    Returns:
        Sorted by key; empty outside a sweep.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return {}
    hydra = HydraConfig.get()
    params = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
    asked = _parse([*params, *(sys.argv[1:] if arguments is None else arguments)])
    swept = {override.key_or_group for override in asked if override.is_sweep_override()}
    job = {override.key_or_group: override.get_value_element_as_str() for override in _parse(hydra.overrides.task)}
    return {key: job[key] for key in sorted(swept) if key in job}


def swept_settings(swept: Mapping[str, str], affects: Affects) -> dict[str, str]:
    """Return those swept keys, with their values in this job, that affect something.

    Not among them is `beir.dataset`: every data set has folders of its own, `beir/<dataset>`, whatever is swept.
    """
    return {name: value for name, value in swept.items() if name != DATASET_KEY and affects_of(name) & affects}


def folder_name(swept: Mapping[str, str], affects: Affects) -> str:
    """Return the name of a job's folder for what depends on some keys; empty when none of them is swept.

    It is readable, and different for different values.

    Example:
        >>> swept = {"config.search_effort": "0.5", "init_dict.model_type_or_dir": "naver/splade-v3"}
        >>> folder_name(swept, Affects.INDEX), folder_name(swept, Affects.INDEX | Affects.SEARCH)
        ('naver_splade-v3', 'naver_splade-v3__search_effort-0.5')
    """
    kept = swept_settings(swept, affects)
    leaves = [key.rpartition(".")[2] for key in kept]
    parts = []
    for key, value in sorted(kept.items(), key=lambda item: item[0] != MODEL_KEY):
        leaf = key.rpartition(".")[2]
        name = leaf if leaves.count(leaf) == 1 else key
        parts.append(_slug(value) if key == MODEL_KEY else f"{_slug(name)}-{_slug(value)}")
    joined = "__".join(parts)
    if len(joined) <= _LONGEST_NAME:
        return joined
    # The end of a long path tells models apart; the digest does when it does not.
    return f"{joined[-_LONGEST_NAME:].lstrip('_-.')}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_.") or "null"


def _parse(arguments: Sequence[str]) -> list[Override]:
    """Parse the overrides among the arguments of a command line."""
    parser = OverridesParser.create()
    overrides = []
    for argument in arguments:
        if "=" not in argument or argument.startswith("-"):
            continue
        try:
            overrides.append(parser.parse_override(argument))
        except HydraException:
            continue  # the value of an option; Hydra has refused anything else
    return overrides
