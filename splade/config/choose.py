"""Which configuration a command uses: an environment variable, Hydra's own options, or the default.

The chosen file is not Hydra's primary config itself. It is included by a small generated one, `experiment`, which puts
the schema underneath, so that every key has a type and a default whatever the file says, and keeps Hydra from
creating folders of its own.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore

from splade.config.keys import help_template
from splade.config.schema import Experiment
from splade.config.validate import drop_removed_keys, node_class, read_yaml
from splade.errors import ConfigError, nearest
from splade.storage.paths import resolve_path

NAME_VARIABLE = "SPLADE_CONFIG_NAME"
PATH_VARIABLE = "SPLADE_CONFIG_FULLPATH"
DEFAULT_CONFIG = "config_default"
ROOT = "experiment"
FREE_FORM_KEYS = ("config.loss", "config.regularizer")


@dataclass(frozen=True)
class ConfigChoice:
    """A config file: its folder, and its name in it without the suffix (a sub-folder is part of the name)."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.folder / f"{self.name}.yaml"


def conf_folder() -> Path:
    """Return the folder of the shipped configs."""
    return resolve_path("pkg://splade/conf")


def choose_config(environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> ConfigChoice:
    """Find the config file that the environment or the command line names.

    Args:
        environ: environment; None: the process's own, read now.
        arguments: command line, in which `--config-name` and `--config-path` count.

    Raises:
        ConfigError: two sources at once, or no such file (the message lists what there is).
    """
    environ = os.environ if environ is None else environ
    option_name, option_folder = _option(arguments, "--config-name", "-cn"), _option(arguments, "--config-path", "-cp")
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
    extra = _option(arguments, "--config-dir", "-cd")
    return _from_name(option_name or given.get(NAME_VARIABLE) or DEFAULT_CONFIG, folder, extra)


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


def replacing_sections(overrides: Sequence[str]) -> list[str]:
    """Let a dictionary given for a free-form key replace the config's one; Hydra alone would merge the two."""
    replaced = []
    for override in overrides:
        name, _, value = override.partition("=")
        if name in FREE_FORM_KEYS and value.lstrip().startswith("{"):
            replaced.append(f"{name}=null")
        replaced.append(override)
    return replaced


def register(choice: ConfigChoice, description: str = "") -> None:
    """Register the schema and the primary config `experiment` that includes the chosen file."""
    store = ConfigStore.instance()
    store.store(name="schema", node=node_class(Experiment))
    included = choice.name
    saved = read_yaml(choice.path) if choice.path.is_file() else None
    if saved is not None and drop_removed_keys(saved):
        included = "saved_by_an_earlier_version"
        store.store(name=included, node=saved)
    root: dict[str, object] = {
        "defaults": [
            "schema",
            f"{included}@_global_",
            {"override hydra/job_logging": "stdout"},
            {"override hydra/hydra_logging": "none"},
            "_self_",
        ],
        "hydra": {
            "searchpath": [f"file://{conf_folder()}"],
            "run": {"dir": "."},
            "sweep": {"dir": "${oc.select:config.out_dir,.}", "subdir": "."},
            "output_subdir": None,
            "help": {"template": help_template(description)},
            "job_logging": {"formatters": {"simple": {"format": "%(asctime)s %(levelname)s %(message)s"}}},
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


def _option(arguments: Sequence[str], *names: str) -> str | None:
    for i, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option in names:
            return value or (arguments[i + 1] if i + 1 < len(arguments) else "")
    return None


def _from_path(value: str) -> ConfigChoice:
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        hint = " (it is a folder: give the .yaml file in it)" if path.is_dir() else ""
        raise ConfigError(f"{PATH_VARIABLE}: no such file: {path}{hint}")
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{PATH_VARIABLE}: {path} is not a .yaml file")
    return ConfigChoice(path.parent, path.stem)


def _from_name(value: str, folder: Path, extra: str | None) -> ConfigChoice:
    name = value.removesuffix(".yaml")
    choice = ConfigChoice(folder, name)
    if choice.path.is_file() or (extra is not None and (Path(extra) / f"{name}.yaml").is_file()):
        return choice
    there = available_configs(folder)
    listing = "\n  ".join(there) or "(none)"
    raise ConfigError(f"no configuration '{value}'{nearest(name, there)}\nIn {folder} there are:\n  {listing}")
