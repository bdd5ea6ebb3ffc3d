"""Reading configuration files: they are data, whoever wrote them, and nothing in one starts a program.

Hydra lets any file of a folder that it composes from set up Hydra itself: callbacks, logging handlers, environment
variables, all of which call what they name. `CheckedFolder` takes the place of Hydra's own reader of folders, so that
every file goes through the checks of this module, however it came to be included.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import NoneType

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splade.config.messages import INTERNAL, nearest_key
from splade.config.renamed import REMOVED_KEYS, RENAMED_KEYS, new_name
from splade.errors import ConfigError

HYDRA_SECTIONS = ("sweeper", "launcher", "run", "sweep")
PLUGIN_GROUPS = ("hydra/sweeper", "hydra/launcher")

_LARGEST_FILE, _MOST_VALUES, _DEEPEST = 1 << 20, 100_000, 50
# Each reference but the first in a value can double a length, and so can each value that is made of such values.
_MOST_JOINED = 8
_REFERENCE = re.compile(r"\$\{(?!\s*oc\.env\s*:)")
_NOT_DOCUMENTED = re.compile(r"\$\{(?!\s*oc\.(?:env|select)\s*:|\s*[\w.\[\]+-]+\s*\})[^}]*\}?")


def read_yaml(path: Path) -> DictConfig:
    """Read a configuration file as it is, without keys of earlier versions that have no effect.

    Raises:
        ConfigError: the file is missing, no YAML, or has no sections; or its content is not plain data: tags, more
            values than a configuration can have (by aliases, too), interpolations that are not documented.
    """
    return _read(path)[0]


def read_handed_over(path: Path) -> DictConfig:
    """Read a configuration that somebody else may have written: sections of the schema, and presets to start from.

    Raises:
        ConfigError: as `read_yaml`, or it has anything else.
    """
    content = read_yaml(path)
    if not content:
        raise ConfigError(f"{path}: the file is empty; a configuration holds sections such as init_dict and config")
    if "hydra" in content:
        raise ConfigError(
            f"{path}: has a section 'hydra', which can run programs and is not taken from a file; leave it out, and "
            "give what you need on the command line, such as hydra.sweep.dir=FOLDER"
        )
    retriever = content.get("retriever")
    if isinstance(retriever, str) and ":" in retriever:
        raise ConfigError(
            f"{path}: retriever={retriever} runs a program and is not taken from a file; give it on the command line"
        )
    _check_defaults(content, path, groups=())
    return content


def drop_removed_keys(values: Mapping[str, object]) -> bool:
    """Drop keys of earlier versions that have no effect; return whether there were any.

    Raises:
        ConfigError: one has an effect.
    """
    found = False
    for name in REMOVED_KEYS:
        section, _, leaf = name.partition(".")
        holder = values.get(section)
        if isinstance(holder, MutableMapping) and leaf in holder:
            found = True
            if holder.pop(leaf):
                raise ConfigError(f"unknown key '{name}'{nearest_key(name)}; leave it out")
    return found


class CheckedFolder(FileConfigSource):
    """A folder that Hydra composes from. Hydra's own groups in it are for plugins that launch and sweep, only."""

    @classmethod
    def install(cls) -> None:
        """Let Hydra read every folder with this class."""
        Plugins.instance()  # registers Hydra's own
        SourcesRegistry.instance().types[cls.scheme()] = cls

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file, checked.

        Raises:
            ConfigError: as `read_yaml`, or it sets up more of Hydra than a file may.
        """
        path = Path(self.path, self._normalize_file_name(config_path))
        content, text = _read(path)
        try:
            header = self._get_header_dict(text[:512])
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error
        if "hydra" in (header["package"] or "").split("."):
            raise ConfigError(f"{path}: '# @package {header['package']}': a file cannot put its values there")
        _check_defaults(content, path, PLUGIN_GROUPS)
        _check_hydra_section(content.get("hydra"), path)
        if config_path.startswith("hydra/"):
            _check_plugin(content, path)
        return ConfigResult(config=content, path=f"file://{self.path}", provider=self.provider, header=header)

    def is_group(self, config_path: str) -> bool:
        """Is it a sub-folder that may hold configurations?"""
        return _inside(config_path) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Is it a file that may be composed?"""
        return _inside(config_path) and super().is_config(config_path)


# A launcher's process registers Hydra's own class again, and Hydra goes by the name.
CheckedFolder.__name__ = FileConfigSource.__name__


def _read(path: Path) -> tuple[DictConfig, str]:
    """Return the content of a file, and its text."""
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file")
    if os.path.getsize(path) > _LARGEST_FILE:
        raise ConfigError(f"{path}: {os.path.getsize(path)} bytes are no configuration, at most {_LARGEST_FILE} are")
    try:
        text = path.read_text(encoding="utf-8")
        _check_text(text, path)
        content = OmegaConf.load(io.StringIO(text))
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({' '.join(str(error).split())[:500]})") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: not a configuration, which holds sections such as init_dict and config")
    drop_removed_keys(content)
    _check_names(content, path)
    return content, text


def _check_names(content: DictConfig, path: Path) -> None:
    """Refuse the section that only other toolkits have, and say what each of its keys is here."""
    section = content.get("hf")
    if section is None:
        return
    values = OmegaConf.to_container(section, resolve=False) if OmegaConf.is_config(section) else section
    keys = [name for name in _leaves(values, "hf") if name in RENAMED_KEYS]
    listing = "".join(f"\n  {name}: {RENAMED_KEYS[name]}" for name in keys)
    raise ConfigError(f"{path}: has a section 'hf'{new_name('hf')}{listing}")


def _leaves(values: object, prefix: str) -> Iterator[str]:
    """Yield the full names of the keys in nested dictionaries."""
    for name, value in values.items() if isinstance(values, dict) else ():
        yield f"{prefix}.{name}"
        yield from _leaves(value, f"{prefix}.{name}")


@dataclass
class _Node:
    """A value of a YAML text: how many values it holds, itself included, and on how many levels; aliases in full."""

    anchor: str | None
    n_values: int = 1
    n_levels: int = 1

    def take(self, part: "_Node") -> None:
        """Count a value as a part of this one."""
        self.n_values += part.n_values
        self.n_levels = max(self.n_levels, part.n_levels + 1)


def _check_text(text: str, path: Path) -> None:
    """Look through the events of YAML, before values are made of them."""
    anchors: dict[str, _Node] = {}
    open_nodes = [_Node(None)]
    joined = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if getattr(event, "tag", None) is not None:
            raise _at(
                path,
                event,
                f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')} is not taken: a configuration is plain data",
            )
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Node(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent | yaml.AliasEvent):
            if isinstance(event, yaml.CollectionEndEvent):
                node = open_nodes.pop()
            elif isinstance(event, yaml.ScalarEvent):
                node = _Node(event.anchor)
                joined += _check_interpolations(path, event)
            elif event.anchor in anchors:
                node = anchors[event.anchor]
            else:
                raise _at(path, event, f"the alias *{event.anchor} stands for nothing, or for what it is part of")
            if node.anchor is not None:
                anchors[node.anchor] = node
            open_nodes[-1].take(node)
        outer = open_nodes[-1]
        if outer.n_values > _MOST_VALUES or len(open_nodes) + outer.n_levels > _DEEPEST or joined > _MOST_JOINED:
            limits = f"{_MOST_VALUES} values, {_DEEPEST} levels, {_MOST_JOINED} references joined to others"
            raise _at(path, event, f"more than a configuration needs, aliases counted in full ({limits})")


def _check_interpolations(path: Path, scalar: yaml.ScalarEvent) -> int:
    """Return how many references a value holds besides its first."""
    wrong = _NOT_DOCUMENTED.search(scalar.value)
    if wrong is not None:
        allowed = "${section.key}, ${oc.env:VARIABLE,default} and ${oc.select:key,default}"
        raise _at(path, scalar, f"{wrong[0]} is not taken; allowed are {allowed}")
    return max(0, len(_REFERENCE.findall(scalar.value)) - 1)


def _at(path: Path, event: yaml.Event, what: str) -> ConfigError:
    return ConfigError(f"{path}, line {event.start_mark.line + 1}: {what}")


def _check_defaults(content: DictConfig, path: Path, groups: tuple[str, ...]) -> None:
    """Check the list of what a configuration includes: its form, and that of Hydra's own groups it has only some."""
    values = OmegaConf.to_container(content, resolve=False)
    defaults = values.get("defaults", []) if isinstance(values, dict) else []
    for item in defaults if isinstance(defaults, list) else [defaults]:
        (key, value), *more = item.items() if isinstance(item, dict) and item else [(item, None)]
        names = value if isinstance(value, list) else [value]
        well_formed = isinstance(defaults, list) and isinstance(key, str) and key.split() and not more
        if not well_formed or not all(isinstance(name, str | NoneType) for name in names):
            raise ConfigError(f"{path}: defaults: {item}: allowed is a list of NAME, NAME@PACKAGE and GROUP: NAME")
        group, _, package = key.partition("@")
        group = group.rpartition(" ")[2].strip("/") + "/"
        own = group.startswith("hydra/") and not group.startswith(tuple(f"{name}/" for name in groups))
        if own or "hydra" in re.split(r"[.:]", package):
            raise ConfigError(f"{path}: defaults: {key}: a file cannot set up Hydra; give it on the command line")


def _check_hydra_section(section: object, path: Path) -> None:
    """Check that a section `hydra` sets up sweeps, and nothing else."""
    if section is None:
        return
    names = list(section) if isinstance(section, DictConfig) else [section]
    wrong = [f"hydra.{name}" for name in names if name not in HYDRA_SECTIONS]
    if wrong:
        allowed = ", ".join(f"hydra.{name}" for name in HYDRA_SECTIONS)
        raise ConfigError(
            f"{path}: {', '.join(wrong)}: what sets up Hydra can run programs, and is not taken from a file, "
            f"except for {allowed}; give it on the command line"
        )
    _check_plugin(section, path)


def _check_plugin(section: object, path: Path) -> None:
    """Check that targets are those of installed plugins, and that the jobs of a sweep leave Hydra alone."""
    for name, value in _entries(OmegaConf.to_container(section, resolve=False) if section is not None else None):
        if name == "_target_" and value not in _plugin_targets():
            there = ", ".join(sorted(_plugin_targets()))
            raise ConfigError(f"{path}: _target_: {value} is not of an installed plugin of Hydra; there are: {there}")
        if re.match(r"[+~]*hydra\b|.*@.*\bhydra\b", name):
            raise ConfigError(f"{path}: {name}: the jobs of a sweep cannot set up Hydra")


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Yield every key of nested dictionaries and lists, with its value."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _entries(part)
    if isinstance(value, dict):
        yield from ((str(name), part) for name, part in value.items())


def _plugin_targets() -> set[str]:
    """Return what the configurations that plugins bring along name as targets."""

    def nodes(group: object) -> Iterator[object]:
        for part in group.values() if isinstance(group, dict) else ():
            yield from nodes(part)
            if isinstance(part, ConfigNode):
                yield OmegaConf.to_container(part.node, resolve=False)

    hydra = ConfigStore.instance().repo.get("hydra", {})
    groups = (hydra.get(name.partition("/")[2]) for name in PLUGIN_GROUPS)
    found = (entry for group in groups for node in nodes(group) for entry in _entries(node))
    return {str(value) for name, value in found if name == "_target_"}


def _inside(config_path: str) -> bool:
    """Does a name stay in its folder, and is it not one of the toolkit's or of Hydra's own?"""
    parts = PurePosixPath(config_path).parts
    own = parts[:1] == ("hydra",) and len(parts) > 1 and "/".join(parts[:2]) not in PLUGIN_GROUPS
    return not (own or config_path.startswith(("/", INTERNAL)) or ".." in parts)
