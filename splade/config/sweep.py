"""What differs between the jobs of a sweep (`--multirun`), and the folders of its own that each job has therefore.

| folder | a job's own one is named after the swept keys that affect |
|---|---|
| `config.checkpoint_dir` | training |
| `config.index_dir` | the index; also training, when the model is a trained one |
| `config.out_dir` | anything at all: all swept keys |

A task that only reads a model or an index takes the job's own one when it is there; else, as long as the swept keys
could as well be those of reading alone (`config.max_length`), the one in the folder itself.
"""

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode

from splade.config.identity import affects_of
from splade.config.schema import VECTORS, Affects, Experiment

MODEL_KEY, DATASET_KEY = "init_dict.model_type_or_dir", "beir.dataset"
_LONGEST_NAME = 100
# Tasks that make a model, and an index.
_TRAINING, _INDEXING = ("train", "run_all", "pretrain", "train_reranker"), ("index", "run_all", "merge")
# Tasks that have folders `<data set>` and `<system>` in the folders that are given.
_OWN_FOLDERS = ("beir_eval", "bm25", "beir_table")


def in_sweep() -> bool:
    """Return whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def swept_values(arguments: Sequence[str] | None = None) -> dict[str, str]:
    """Return key to value of this job, for the keys that take several values in the running sweep.

    Args:
        arguments: command line of the sweep; None: the process's own.

    Returns:
        Sorted by key; empty outside a sweep.
    """
    if not in_sweep():
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
    return job_name(swept_settings(swept, affects))


def short_names(swept: Mapping[str, str]) -> dict[str, str]:
    """Return swept key to what it is called for short: its last part, unless several have that.

    Example:
        >>> short_names({"config.lr": "1e-5", "config.seed": "1"})
        {'config.lr': 'lr', 'config.seed': 'seed'}
    """
    leaves = [key.rpartition(".")[2] for key in swept]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(swept, leaves, strict=True)}


def job_title(swept: Mapping[str, str]) -> str:
    """Return what a job is called in messages.

    Example:
        >>> job_title({"config.lr": "1e-5", "config.seed": "1"})
        'lr=1e-5, seed=1'
    """
    return ", ".join(f"{name}={swept[key]}" for key, name in short_names(swept).items())


def job_name(swept: Mapping[str, str]) -> str:
    """Return the name of a file or folder for swept keys; empty for none."""
    names = short_names(swept)
    parts = []
    for key, value in sorted(swept.items(), key=lambda item: item[0] != MODEL_KEY):
        parts.append(_slug(value) if key == MODEL_KEY else f"{_slug(names[key])}-{_slug(value)}")
    joined = "__".join(parts)
    if len(joined) <= _LONGEST_NAME:
        return joined
    # The end of a long path tells models apart; the digest does when it does not.
    return f"{joined[-_LONGEST_NAME:].lstrip('_-.')}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"


def index_affects(experiment: Experiment) -> Affects:
    """Return what an index depends on: not on the settings of training, if the model is used as it is."""
    return Affects.INDEX | Affects.TRAIN if _is_trained(experiment) else Affects.INDEX


def in_job_folders(experiment: Experiment, swept: Mapping[str, str], task: str) -> Experiment:
    """Return the experiment of a job, in folders of its own below those that are given; as it is outside a sweep.

    Args:
        experiment: what the job is to do.
        swept: from `swept_values`.
        task: name of the task's module.
    """
    run = experiment.config
    checkpoint_dir, index_dir, out_dir = run.checkpoint_dir, run.index_dir, run.out_dir
    if task in _TRAINING or _is_trained(experiment):
        made = task in _TRAINING
        checkpoint_dir = _own_folder(checkpoint_dir, "checkpoint_dir", swept, Affects.TRAIN, VECTORS, made)
    if task not in _OWN_FOLDERS:
        affects, made = index_affects(experiment), task in _INDEXING
        index_dir = _own_folder(index_dir, "index_dir", swept, affects, Affects.SEARCH, made)
        name = job_name({key: value for key, value in swept.items() if key != "config.out_dir"})
        out_dir = out_dir if out_dir is None or not name else str(Path(out_dir) / name)
    folders = replace(run, checkpoint_dir=checkpoint_dir, index_dir=index_dir, out_dir=out_dir)
    return replace(experiment, config=folders)


def _is_trained(experiment: Experiment) -> bool:
    return not experiment.config.pretrained_no_yamlconfig and experiment.config.regularizer != "eval_only"


def _own_folder(
    given: str | None, key: str, swept: Mapping[str, str], affects: Affects, reading: Affects, made: bool
) -> str | None:
    """Return a job's own folder below the one that is given.

    Args:
        given: value of the key.
        key: in the section `config`.
        swept: values of the job.
        affects: what the content of the folder depends on.
        reading: what those depend on who read it: keys with this flag may be theirs alone.
        made: whether the task makes the content, not only reads it.
    """
    own = {name: value for name, value in swept_settings(swept, affects).items() if name != f"config.{key}"}
    if given is None or not own:
        return given
    folder = Path(given) / job_name(own)
    made_by_sweep = folder.is_dir() or any(not affects_of(name) & reading for name in own)
    return str(folder) if made or made_by_sweep else given


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
