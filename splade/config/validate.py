"""From Hydra's composed config to a checked `Experiment`."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, make_dataclass, replace
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splade.config.files import drop_removed_keys
from splade.config.inherited import give_way
from splade.config.keys import Section, allowed_values, choices, members, section_class
from splade.config.messages import explain_composition_error
from splade.config.schema import LARGEST_INT, Bounds, Experiment
from splade.config.training_folder import settle_training_folder
from splade.errors import ConfigError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SectionType = TypeVar("SectionType", bound="DataclassInstance")
_WHAT_MEASURES = (
    "data.VALIDATION_SIZE_FOR_LOSS measures the loss, data.VALIDATION_FULL_RANKING what config.validation_metrics names"
)


def to_experiment(cfg: DictConfig, given: frozenset[str] = frozenset()) -> Experiment:
    """Check a composed config against the schema and return it as dataclasses.

    Args:
        cfg: the composed config.
        given: keys that the command line set; the others give way to them.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong type, a value that is not allowed, or `???`.
    """
    values = _plain(cfg, "")
    drop_removed_keys(values)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}: give it as an override, {missing[0]}=VALUE")
    experiment = _typed_section(Experiment, values, "")
    settle_training_folder(experiment, given)
    give_way(experiment, given)
    return experiment


def require(experiment: Experiment, *keys: str) -> None:
    """Raise a ConfigError that names every key of `keys` (such as `config.index_dir`) that has no value."""
    absent = []
    for name in keys:
        value: object = experiment
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None or value == [] or value == "":
            absent.append(name)
    if absent:
        raise ConfigError(f"no value for {', '.join(absent)}: give it as an override, {absent[0]}=VALUE")


def check_monitored(experiment: Experiment) -> None:
    """Raise a ConfigError when `monitoring_ckpt` or `early_stopping` is something that validation does not measure."""
    run, data = experiment.config, experiment.data
    ranking = data.VALIDATION_FULL_RANKING
    ranks = ranking is not None and any((ranking.D_COLLECTION_PATH, ranking.Q_COLLECTION_PATH, ranking.QREL_PATH))
    measured = (["loss"] if data.VALIDATION_SIZE_FOR_LOSS else []) + (list(run.validation_metrics) if ranks else [])
    if measured and run.monitoring_ckpt not in measured:
        near = nearest(run.monitoring_ckpt, measured)
        raise ConfigError(
            f"config.monitoring_ckpt={run.monitoring_ckpt} is not measured here{near or '.'} Allowed is "
            f"{' or '.join(measured)} ({_WHAT_MEASURES})"
        )
    if not measured and run.early_stopping:
        raise ConfigError(
            f"config.early_stopping={str(run.early_stopping).lower()} needs validation: set "
            "data.VALIDATION_SIZE_FOR_LOSS or data.VALIDATION_FULL_RANKING"
        )
    if isinstance(run.early_stopping, str) and run.early_stopping not in measured:
        raise ConfigError(
            f"config.early_stopping={run.early_stopping} is not measured here: true, false or one of "
            f"{', '.join(measured)} is meant ({_WHAT_MEASURES})"
        )


@cache
def node_class(section: Section) -> Section:
    """Return a schema dataclass with the types that OmegaConf knows: no Literal, no union of two types and more."""
    return make_dataclass(section.__name__, [(item.name, *_node_type(item)) for item in fields(section)])


def _node_type(item: Field[Any]) -> tuple[Any, Any]:
    """Return type and default of a field for OmegaConf."""
    section, kinds = section_class(item.type), [kind for kind in members(item.type) if kind is not NoneType]
    if section is None and item.default_factory is MISSING:
        default = field(default=item.default)
    else:
        default = field(default_factory=node_class(section) if section is not None else item.default_factory)
    if len(kinds) > 1 or _is_list_of_lists(kinds[0]):
        return Any, default
    kind: Any = node_class(section) if section is not None else str if choices(item.type) else kinds[0]
    return (kind | None if NoneType in members(item.type) else kind), default


def _is_list_of_lists(kind: object) -> bool:
    return get_origin(kind) is list and get_origin(get_args(kind)[0]) is list


def _plain(cfg: DictConfig | ListConfig, prefix: str) -> dict[str, object]:
    """Return nested dictionaries and lists, without interpolations."""
    try:
        values = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise explain_composition_error(error, prefix=prefix) from error
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def _typed_section(section: type[SectionType], values: object, prefix: str) -> SectionType:
    """Build a section of the schema from values without unknown keys."""
    try:
        typed = OmegaConf.merge(_structured(section), _escaped(values))
    except OmegaConfBaseException as error:
        raise explain_composition_error(error, prefix=prefix) from error
    return _checked_section(section, _plain(typed, prefix), prefix)


@cache
def _structured(section: Section) -> DictConfig:
    """Return the schema of a section as OmegaConf has it, which takes as long to make as Hydra's defaults list."""
    return OmegaConf.structured(node_class(section))


def _escaped(values: object) -> object:
    """Return values without interpolations so that OmegaConf sees none: what looks like one was meant as text."""
    if isinstance(values, Mapping):
        return {name: _escaped(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_escaped(value) for value in values]
    return values.replace("${", "\\${") if isinstance(values, str) else values


def _checked_section(section: type[SectionType], values: Mapping[str, object], prefix: str) -> SectionType:
    checked: dict[str, object] = {}
    for item in fields(section):
        value, full, nested = values[item.name], prefix + item.name, section_class(item.type)
        if nested is None:
            value = _checked_value(full, value, item.type, item.metadata["bounds"])
        elif isinstance(value, Mapping):
            value = _checked_section(nested, value, f"{full}.")
        checked[item.name] = value
    return section(**checked)


def _checked_value(full: str, value: object, annotation: object, bounds: Bounds) -> object:
    """Return a value that is of one of the types of an annotation, and within bounds."""
    for kind in members(annotation):
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        if origin is Literal and value in arguments:
            return value
        if origin is dict and isinstance(value, dict):
            entries = value.items()
            return {
                str(key): _checked_value(f"{full}.{key}", content, arguments[1], bounds) for key, content in entries
            }
        if _is_list_of_lists(kind) and isinstance(value, list) and any(isinstance(entry, str) for entry in value):
            value = [value]  # the only entry
        if origin is list and isinstance(value, list):
            return [_checked_value(f"{full}[{i}]", content, arguments[0], bounds) for i, content in enumerate(value)]
        entry = section_class(kind)
        if entry is not None and isinstance(value, dict):
            # An entry without `reg` has it in its name.
            return _typed_section(entry, value | {"reg": value.get("reg") or full.rpartition(".")[2]}, f"{full}.")
        if origin in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
            limits = replace(bounds, maximum=LARGEST_INT) if origin is int and bounds.maximum is None else bounds
            if value not in limits:
                finite = "" if abs(value) < math.inf else "a finite number, "
                raise ConfigError(f"{full}={value}: must be {finite}{limits}")
            return float(value) if origin is float else value
        if isinstance(origin, type) and type(value) is origin:
            return value
    allowed = allowed_values(annotation)
    raise ConfigError(f"{full}={value}: allowed is {allowed}{nearest(str(value), choices(annotation))}")
