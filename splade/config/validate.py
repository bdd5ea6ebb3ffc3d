"""From Hydra's composed config to a checked `Experiment`."""

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splade.config.help import nested_dataclass
from splade.config.schema import Experiment, RegularizerConfig
from splade.errors import ConfigError, nearest


def to_experiment(cfg: DictConfig) -> Experiment:
    """Check a composed config against the schema and return it as dataclasses.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong type, a value outside its choices, or `???`.
    """
    check_unknown_keys(cfg)
    missing = sorted(missing_keys(cfg))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}: give it as an override, {missing[0]}=VALUE")
    try:
        experiment = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Experiment), cfg))
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    assert isinstance(experiment, Experiment)
    experiment.config.regularizer = _regularizers(experiment.config.regularizer)
    check_values(experiment)
    return experiment


def require(experiment: Experiment, *keys: str) -> None:
    """Raise a ConfigError that names every key of `keys` (such as `config.index_dir`) that has no value."""
    absent = []
    for name in keys:
        value: Any = experiment
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None or value == [] or value == "":
            absent.append(name)
    if absent:
        raise ConfigError(f"no value for {', '.join(absent)}: give it as an override, {absent[0]}=VALUE")


def schema_keys(cls: type = Experiment, prefix: str = "") -> Iterator[str]:
    """Yield every key of the schema, sections included."""
    for item in fields(cls):
        yield prefix + item.name
        nested = nested_dataclass(item.type)
        if nested is not None:
            yield from schema_keys(nested, f"{prefix}{item.name}.")


# What other toolkits call our keys.
SYNONYMS = {
    "learning_rate": "config.lr",
    "batch_size": "config.train_batch_size",
    "per_device_train_batch_size": "config.train_batch_size",
    "max_steps": "config.nb_iterations",
    "max_seq_length": "config.max_length",
    "output_dir": "config.out_dir",
    "model_name_or_path": "init_dict.model_type_or_dir",
    "num_negatives": "config.n_negatives",
    "k": "config.top_k",
}


def nearest_key(name: str) -> str:
    """Return "; did you mean 'x'?" for a full key, looking first among its sisters."""
    section = name.rpartition(".")[0]
    known = list(schema_keys())
    if name.startswith("config.regularizer.") and name.count(".") == 3:
        known = [f"{section}.{item.name}" for item in fields(RegularizerConfig)]
    sisters = [other for other in known if other.rpartition(".")[0] == section]
    synonym = get_close_matches(name.rpartition(".")[2], SYNONYMS, n=1, cutoff=0.8)
    if synonym:
        return f"; did you mean '{SYNONYMS[synonym[0]]}'?"
    return nearest(name, sisters) or nearest(name, known) or nearest_leaf(name, known)


def nearest_leaf(name: str, known: list[str]) -> str:
    """Look for the key's last part in other sections: `lr` is `config.lr`."""
    leaf = name.rpartition(".")[2]
    return next((f"; did you mean '{other}'?" for other in known if other.rpartition(".")[2] == leaf), "")


def check_unknown_keys(cfg: DictConfig, cls: type = Experiment, prefix: str = "") -> None:
    """Raise a ConfigError for the first key of `cfg` that the schema does not have."""
    known = {item.name: nested_dataclass(item.type) for item in fields(cls)}
    for name in cfg:
        full = prefix + str(name)
        if name not in known:
            raise ConfigError(f"unknown key '{full}'{nearest_key(full)}")
        nested = known[str(name)]
        child = None if nested is None or OmegaConf.is_missing(cfg, name) else cfg[name]
        if nested is not None and isinstance(child, DictConfig):
            check_unknown_keys(child, nested, full + ".")
        elif child is not None:
            raise ConfigError(f"{full} is a section with keys of its own, not a value")


def missing_keys(cfg: DictConfig | ListConfig) -> set[str]:
    """Return the full keys whose value is `???`."""
    return set(OmegaConf.missing_keys(cfg))


def check_values(section: Any, prefix: str = "") -> None:
    """Check choices and minima of every key of a schema dataclass, recursively."""
    for item in fields(section):
        value, full = getattr(section, item.name), prefix + item.name
        if hasattr(value, "__dataclass_fields__"):
            check_values(value, full + ".")
        elif value is None:
            continue
        elif item.metadata["choices"] and value not in item.metadata["choices"]:
            allowed = " | ".join(item.metadata["choices"])
            raise ConfigError(f"{full}={value}: allowed is {allowed}{nearest(str(value), item.metadata['choices'])}")
        elif item.metadata["minimum"] is not None and not value >= item.metadata["minimum"]:
            raise ConfigError(f"{full}={value}: must be at least {item.metadata['minimum']}")


def first_line(error: Exception) -> str:
    """Return an OmegaConf message in one line: the key and what is wrong with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return f"{key}: {lines[0]}" if key else lines[0] if lines else type(error).__name__


def _regularizers(value: Any) -> dict[str, RegularizerConfig] | str | None:
    if value is None or value == "eval_only":
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"config.regularizer={value}: allowed is eval_only, null, or {{NAME: {{reg: FLOPS, ...}}}}")
    known = [item.name for item in fields(RegularizerConfig)]
    regularizers = {}
    for name, entry in value.items():
        full = f"config.regularizer.{name}"
        if not isinstance(entry, dict):
            raise ConfigError(f"{full}={entry}: must hold keys {', '.join(known)}")
        for key in entry:
            if key not in known:
                raise ConfigError(f"unknown key '{full}.{key}'{nearest_key(f'{full}.{key}')}")
        try:
            typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RegularizerConfig), entry))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{full}.{first_line(error)}") from error
        assert isinstance(typed, RegularizerConfig)
        typed.reg = typed.reg or name
        check_values(typed, full + ".")
        regularizers[name] = typed
    return regularizers
