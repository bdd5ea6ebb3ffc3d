"""Which settings identify what is kept: checkpoints, indexes and results may be used again while these are the same.

All of it follows from what the schema says that a key affects (`splade.config.schema.Affects`), and from nothing else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields

from splade.config.keys import ENTRY, Section, entry_class, schema_keys, section_class
from splade.config.schema import Affects, Experiment

ANYTHING = Affects.TRAIN | Affects.INDEX | Affects.SEARCH


def settings_affecting(experiment: Experiment, affects: Affects, names_files: bool = True) -> dict[str, object]:
    """Return the values of the keys that affect something.

    Args:
        experiment: the settings.
        affects: what they affect; of several flags, at least one.
        names_files: with the keys that name files or a model. Without them, the caller adds digests of what was read:
            a model under another name is the same model, and a file that was written anew is not.

    Returns:
        Full key to value, ready for JSON; in the order of the schema.

    Example:
        >>> settings_affecting(Experiment(), Affects.MODEL)["config.matching_type"]
        'splade'
    """
    return recorded_settings(asdict(experiment), affects, names_files, type(experiment))


def recorded_settings(
    record: Mapping[str, object], affects: Affects, names_files: bool = True, schema: Section = Experiment
) -> dict[str, object]:
    """Return the same from settings that were written down as nested dictionaries, perhaps by an older version.

    A key that is not there has its default: it did not exist yet. One that the schema does not have (any more) is
    passed over.
    """
    run = record.get("config")
    if isinstance(run, Mapping) and "overwrite" not in run:
        # `overwrite_final` was the name of `overwrite`, and the model always the best checkpoint.
        record = {**record, "config": {name: value for name, value in run.items() if name != "overwrite_final"}}
    return dict(_flat(record, schema, affects, names_files, ""))


def affects_of(name: str) -> Affects:
    """Return what an override of a key, a section, an entry of a dictionary or a config group affects.

    Example:
        >>> affects_of("config.loss.KlDiv") == affects_of("config.loss") == Affects.TRAIN
        True
    """
    parts = name.split(".")
    affects = Affects.NOTHING
    found = False
    for key in schema_keys():
        pattern = key.name.split(".")
        if all(ours in (ENTRY, theirs) for ours, theirs in zip(pattern, parts, strict=False)):
            affects, found = affects | key.affects, True
    return affects if found else ANYTHING


def _flat(
    record: Mapping[str, object], schema: Section, affects: Affects, names_files: bool, prefix: str
) -> Iterator[tuple[str, object]]:
    for item in fields(schema):
        name = prefix + item.name
        default = item.default if item.default_factory is MISSING else item.default_factory()
        section, entries = section_class(item.type), entry_class(item.type)
        value = record.get(item.name, {} if section is not None else default)
        if section is not None and isinstance(value, Mapping):
            yield from _flat(value, section, affects, names_files, f"{name}.")
        elif entries is not None and isinstance(value, Mapping) and value:
            for entry, content in value.items():
                yield from _flat(content, entries, affects, names_files, f"{name}.{entry}.")
        elif section is not None:
            if any(key.affects & affects for key in schema_keys(section)):
                yield name, value
        elif item.metadata["affects"] & affects and (names_files or not item.metadata["names_files"]):
            yield name, value
