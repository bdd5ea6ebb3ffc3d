"""The text of `--help`: one line per configuration key, made from the schema."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

from splade.config.schema import Experiment, RegularizerConfig


def describe_keys(cls: type = Experiment, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yield (key, type name, default, description) for every leaf of the schema, in order."""
    for item in fields(cls):
        name, nested = prefix + item.name, nested_dataclass(item.type)
        if nested is not None:
            yield from describe_keys(nested, name + ".")
        elif name == "config.regularizer":
            yield name, "dict", None, item.metadata["help"]
            yield from describe_keys(RegularizerConfig, "config.regularizer.<NAME>.")
        else:
            factory = item.default_factory
            default = item.default if factory is MISSING else factory()
            choices = " | ".join(item.metadata["choices"])
            text = f"{item.metadata['help']}: {choices}" if choices else item.metadata["help"]
            yield name, type_name(item.type), default, text


def nested_dataclass(annotation: Any) -> type | None:
    """Return the dataclass that an annotation such as `X` or `X | None` names, or None."""
    return next((kind for kind in (annotation, *get_args(annotation)) if is_dataclass(kind)), None)  # type: ignore


def type_name(annotation: Any) -> str:
    """Return a short name for an annotation: `int`, `str`, `list`..."""
    names = [getattr(kind, "__name__", str(kind)) for kind in (get_args(annotation) or (annotation,))]
    if str(annotation).startswith("list"):
        return "list"
    return next((name for name in names if name != "NoneType"), "any").lower()


def help_template(description: str) -> str:
    """Return the template that Hydra prints for `--help`."""
    lines = []
    for name, kind, default, text in describe_keys():
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        lines.append(f"  {name} ({kind}, {shown}): {text}")
    keys = "\n".join(lines).replace("$", "$$")
    return f"""{description.strip()}

Usage: python -m splade.TASK [KEY=VALUE ...] [GROUP=OPTION ...] [Hydra options]

The configuration is the one that SPLADE_CONFIG_NAME (a file of conf/) or SPLADE_CONFIG_FULLPATH (any file) names,
else config_default, the toy pipeline. `--cfg job` prints it composed; `--multirun` runs several values of a key.

$APP_CONFIG_GROUPS
== Keys (type, default) ==

{keys}

== Hydra options ==

$FLAGS_HELP"""
