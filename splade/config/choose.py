"""Which configuration a command uses: an environment variable, Hydra's own options, or the default.

The chosen file is not Hydra's primary config itself. It is included by a small generated one, which puts the schema
underneath, so that every key has a type and a default whatever the file says, and keeps Hydra from creating folders of
its own. A file handed over by its path is included alone, without its folder: what lies beside it is nobody's choice.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from splade.config.arguments import CONFIG_OPTIONS, given_keys
from splade.config.files import CheckedFolder, read_handed_over
from splade.config.keys import help_template, schema_keys
from splade.config.messages import INTERNAL
from splade.config.schema import Experiment
from splade.config.validate import node_class
from splade.errors import ConfigError, nearest
from splade.storage.paths import resolve_path

NAME_VARIABLE = "SPLADE_CONFIG_NAME"
PATH_VARIABLE = "SPLADE_CONFIG_FULLPATH"
DEFAULT_CONFIG, OWN_DATA_CONFIG = "config_default", "own_data"
ADAPT_CONFIG = "config_domain_adaptation"
ON_AN_INDEX = ("search", "serve", "explain", "figures", "update", "prune", "export")
"""Commands whose data is an index, which says itself what made it: the toy pipeline is not meant."""
ROOT, SCHEMA, HANDED_OVER = f"{INTERNAL}experiment", f"{INTERNAL}schema", f"{INTERNAL}handed_over"


@dataclass(frozen=True)
class ConfigChoice:
    """A config file.

    Attributes:
        folder: that Hydra composes from.
        name: in the folder, without the suffix; a sub-folder is part of it.
        handed_over: the file lies elsewhere, and is included without what lies beside it.
    """

    folder: Path
    name: str
    handed_over: Path | None = None

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.handed_over or self.folder / f"{self.name}.yaml"


def conf_folder() -> Path:
    """Return the folder of the shipped configs."""
    return resolve_path("pkg://splade/conf")


def choose_config(
    environ: Mapping[str, str] | None = None, arguments: Sequence[str] = (), command: str = ""
) -> ConfigChoice:
    """Find the config file that the environment or the command line names.

    Where neither does, it is the toy pipeline; but the settings for one's own data as soon as the command line names
    data.

    Args:
        environ: environment; None: the process's own, read now.
        arguments: command line, in which `--config-name` and `--config-path` count.
        command: the task.

    Raises:
        ConfigError: two sources at once, or no such file (the message lists what there is).
    """
    environ = os.environ if environ is None else environ
    _check_arguments(arguments)
    option_name, option_folder = _option(arguments, "--config-name"), _option(arguments, "--config-path")
    given = {
        NAME_VARIABLE: environ.get(NAME_VARIABLE),
        PATH_VARIABLE: environ.get(PATH_VARIABLE),
        "--config-name/--config-path": option_name or option_folder,
    }
    given = {source: value for source, value in given.items() if value}
    if len(given) > 1:
        named = ", ".join(f"{source}={value}" for source, value in given.items())
        raise ConfigError(f"more than one configuration is given: {named}. Give one of them (unset the others).")
    if PATH_VARIABLE in given:
        return _from_path(str(given[PATH_VARIABLE]))
    folder = Path(option_folder).absolute() if option_folder else conf_folder()
    extra = _option(arguments, "--config-dir")
    default = OWN_DATA_CONFIG if command in ON_AN_INDEX or names_own_data(arguments) else DEFAULT_CONFIG
    default = ADAPT_CONFIG if command == "adapt" else default
    if option_folder and not option_name:
        default = DEFAULT_CONFIG
    return _from_name(option_name or given.get(NAME_VARIABLE) or default, folder, extra)


def names_own_data(arguments: Sequence[str]) -> bool:
    """Return whether a command line names files of data, which are not those of the toy pipeline then.

    Example:
        >>> names_own_data(["data.TRAIN.DATASET_PATH=my/triplets.tsv"]), names_own_data(["data.flops_queries=null"])
        (True, False)
    """
    files = {key.name for key in schema_keys() if key.name.startswith("data.") and key.names_files}
    return not given_keys(arguments).isdisjoint(files | {"data.TRAIN_DATA_DIR", "data.EVAL_QREL_PATH"})


def without_config_options(arguments: Sequence[str]) -> list[str]:
    """Drop `--config-name` and `--config-path`, which `choose_config` has dealt with."""
    kept, skip = [], False
    for argument in arguments:
        option, _, value = argument.partition("=")
        if skip:
            skip = False
        elif option in ("--config-name", "-cn", "--config-path", "-cp"):
            skip = not value
        else:
            kept.append(argument)
    return kept


def register(choice: ConfigChoice, description: str = "", job_name: str = "splade") -> None:
    """Register the schema and the primary config `ROOT`, which includes the chosen file.

    `job_name` is what the jobs of a sweep are called in the queue of a cluster.
    """
    CheckedFolder.install()
    OmegaConf.register_new_resolver("splade_folder", lambda folder: folder or ".", replace=True)
    store = ConfigStore.instance()
    store.store(name=SCHEMA, node=node_class(Experiment))
    if choice.handed_over is not None:
        store.store(name=HANDED_OVER, node=read_handed_over(choice.handed_over))
    root: dict[str, object] = {
        "defaults": [
            SCHEMA,
            "_self_",
            f"{choice.name}@_global_",
            {"override hydra/job_logging": "stdout"},
            {"override hydra/hydra_logging": "none"},
        ],
        "hydra": {
            "searchpath": [f"file://{conf_folder()}"],
            "job": {"name": job_name},
            "run": {"dir": "."},
            "sweep": {"dir": "${splade_folder:${oc.select:config.out_dir}}", "subdir": "."},
            "output_subdir": None,
            "callbacks": {"splade": {"_target_": "splade.config.jobs.FindsSweepFolder"}},
            "help": {"template": help_template(description)},
            "job_logging": {
                "formatters": {"simple": {"format": "%(asctime)s %(levelname)s %(message)s"}},
                "loggers": {"hydra": {"level": "WARNING"}},  # each job of a sweep is announced by `TaskJobs`
            },
        },
    }
    store.store(name=ROOT, node=root)


def available_configs(folder: Path) -> list[str]:
    """Names of the experiment configs of a folder: files called `config*`, in any sub-folder that is not a group."""
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("config*.yaml")
        if path.relative_to(folder).parts[0] != "train"
    )


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what would go around the choice of a config, or take it in a way that can run programs."""
    known = {*CONFIG_OPTIONS, *CONFIG_OPTIONS.values()}
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option.startswith("--exp"):
            raise ConfigError(
                f"{option}: the pickles of Hydra are not read; give the config.yaml of a run as {PATH_VARIABLE}"
            )
        if option.startswith("--con") and option not in known:
            raise ConfigError(f"{option}: options of a configuration are {', '.join(CONFIG_OPTIONS)}, not shortened")
        if option in known and not (value if equals else "".join(arguments[i + 1 : i + 2])):
            raise ConfigError(f"{option}: no value is given")
        if re.match(r"[^-=][^=]*@[^=]*\bhydra\b", argument):
            raise ConfigError(f"{argument}: a config cannot be put into the settings of Hydra")


def _option(arguments: Sequence[str], name: str) -> str | None:
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in (name, CONFIG_OPTIONS[name]):
            return value if equals else arguments[i + 1]
    return None


def _from_path(value: str) -> ConfigChoice:
    path = Path(os.path.expanduser(value)).absolute()
    if not os.path.isfile(path):
        hint = " (it is a folder: give the .yaml file in it)" if os.path.isdir(path) else ""
        hint = " (it is no regular file)" if os.path.exists(path) and not hint else hint
        raise ConfigError(f"{PATH_VARIABLE}: no such file: {path}{hint}")
    if path.suffix != ".yaml":
        raise ConfigError(f"{PATH_VARIABLE}: {path} is not a .yaml file{_rename_hint(path)}")
    return ConfigChoice(conf_folder(), HANDED_OVER, path)


def _from_name(value: str, folder: Path, extra: str | None) -> ConfigChoice:
    name = value.removesuffix(".yaml")
    if name.startswith("/") or ".." in name.split("/"):
        raise ConfigError(f"'{value}' is not the name of a configuration in {folder}; {PATH_VARIABLE} takes any path")
    if not re.fullmatch(r"[\w./+-]+", name):
        raise ConfigError(f"'{value}': the name of a configuration has letters, digits, '/' and any of '_.+-'")
    choice = ConfigChoice(folder, name)
    folders = [folder] if extra is None else [folder, Path(extra)]
    if any(os.path.isfile(place / f"{name}.yaml") for place in folders):
        return choice
    there = available_configs(folder)
    listing = "\n  ".join(there) or "(none)"
    rename = "".join(_rename_hint(place / name) for place in folders)
    raise ConfigError(
        f"no configuration '{value}'{rename or nearest(name, there)}\nIn {folder} there are:\n  {listing}"
    )


def _rename_hint(path: Path) -> str:
    found = path if path.suffix == ".yml" else path.with_name(f"{path.name}.yml")
    return f"; rename {found} to {found.with_suffix('.yaml').name}" if os.path.isfile(found) else ""
