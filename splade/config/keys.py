"""The keys of the schema as a list, and the text of `--help` that is made from it."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Literal, TypeAlias, Union, get_args, get_origin

from splade.config.schema import Affects, Bounds, Experiment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Section: TypeAlias = "type[DataclassInstance]"
ENTRY = "<NAME>"


@dataclass(frozen=True)
class Key:
    """A key of the schema.

    Attributes:
        name: full name, such as `config.lr`; a part that the user names, such as a regulariser's, is `<NAME>`.
        annotation: its type.
        default: its value where no configuration gives one.
        help: its meaning.
        affects: what depends on it.
        names_files: it names files or a model.
        bounds: of numbers.
    """

    name: str
    annotation: object
    default: object
    help: str
    affects: Affects
    names_files: bool
    bounds: Bounds


def schema_keys(section: Section = Experiment, prefix: str = "") -> Iterator[Key]:
    """Yield every key of the schema, or of one of its sections, in order."""
    for item in fields(section):
        name, sub_section, entries = prefix + item.name, section_class(item.type), entry_class(item.type)
        if sub_section is not None:
            yield from schema_keys(sub_section, f"{name}.")
            continue
        default = item.default if item.default_factory is MISSING else item.default_factory()
        yield Key(name, item.type, default, **item.metadata)
        if entries is not None:
            yield from schema_keys(entries, f"{name}.{ENTRY}.")


def members(annotation: object) -> tuple[object, ...]:
    """Return the types of a union, or the only type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def section_class(annotation: object) -> "Section | None":
    """Return the dataclass that an annotation such as `X` or `X | None` names, if it names one."""
    return next((kind for kind in members(annotation) if isinstance(kind, type) and is_dataclass(kind)), None)


def entry_class(annotation: object) -> "Section | None":
    """Return the dataclass `X` of an annotation such as `dict[str, X] | None`, if it names one."""
    values = [get_args(kind)[1] for kind in members(annotation) if get_origin(kind) is dict]
    return section_class(values[0]) if values else None


def choices(annotation: object) -> tuple[str, ...]:
    """Return the names that a Literal allows."""
    return tuple(name for kind in members(annotation) if get_origin(kind) is Literal for name in get_args(kind))


def allowed_values(annotation: object) -> str:
    """Return the values of a type in the notation of a config: `max | sum`, `str | {NAME: ...} | null`."""
    section = section_class(annotation)
    if section is not None:
        return f"{{{', '.join(item.name for item in fields(section))}}}"
    shown = {NoneType: "null", dict: "{NAME: ...}", list: "[...]"}
    kinds = [get_origin(kind) or kind for kind in members(annotation)]
    names = [shown.get(kind) or getattr(kind, "__name__", "") for kind in kinds if kind is not Literal]
    return " | ".join([*choices(annotation), *names])


def describe(key: Key) -> str:
    """Return the line of `--help`: name, type, default, bounds, meaning and choices, and what depends on the key."""
    names, kind = choices(key.annotation), allowed_values(key.annotation).removesuffix(" | null")
    default = "null" if key.default is None else key.default
    default = str(default).lower() if isinstance(default, bool) else default
    bounds = f"; {key.bounds}" if key.bounds != Bounds() else ""
    if len(names) > 1:
        kind, text = "str", f"{key.help}: {' | '.join(names)}"
    else:
        text = key.help
    flags = (flag for flag in Affects if flag & key.affects and flag is not Affects.MODEL)
    affected = ", ".join(str(flag.name).lower() for flag in flags)
    return f"{key.name} ({kind}, {default}{bounds}): {text}{f' [{affected}]' if affected else ''}"


def help_template(description: str) -> str:
    """Return the template that Hydra prints for `--help`."""
    keys = "\n".join(f"  {describe(key)}" for key in schema_keys()).replace("$", "$$")
    return f"""{description.strip()}

Usage: python -m splade.TASK [KEY=VALUE ...] [GROUP=OPTION ...] [Hydra options]

The configuration is the one that SPLADE_CONFIG_NAME (a file of conf/) or SPLADE_CONFIG_FULLPATH (any file) names,
else config_default, the toy pipeline. `--cfg job` prints it composed; `--multirun` runs several values of a key.

$APP_CONFIG_GROUPS
== Keys (type, default, bounds), [what depends on them] ==

{keys}

== Hydra options ==

$FLAGS_HELP"""
