"""From what a user types to what Hydra reads: the same meaning, with fewer rules to know.

Hydra's grammar takes brackets, commas, quotes and many other characters in a value for its own. A value of a key that
holds text, a path or a question, is quoted where Hydra would refuse it or see several values in it; a single value
of a key that holds a list is its only entry. `+key` sets one of our keys whether or not the configuration has it.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from types import NoneType
from typing import get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from splade.config.keys import members, schema_keys
from splade.config.renamed import new_name
from splade.errors import ConfigError

FREE_FORM_KEYS = ("config.loss", "config.regularizer")
CONFIG_OPTIONS = {"--config-name": "-cn", "--config-path": "-cp", "--config-dir": "-cd"}
POSITIONAL = {
    "search": ("config.index_dir", "query"),
    "update": ("config.index_dir",),
    "index_info": ("index_dir",),
    "adapt": ("data.TRAIN_DATA_DIR", "config.out_dir"),
    "serve": ("config.index_dir",),
    "prune": ("config.index_dir",),
    "explain": ("explain.text",),
    "figures": ("figures.folder",),
    "export": ("config.index_dir",),
}
"""What the arguments of a command stand for that are no `key=value`."""

_OVERRIDE = re.compile(r"(~|\+{0,2})([\w./@:<>-]+)=(.*)", re.DOTALL)
_OPTIONS_WITH_VALUE = {*CONFIG_OPTIONS, *CONFIG_OPTIONS.values(), *"--cfg -c --package -p --info -i".split()}
_SWEEP = ("--multirun", "-m")


def hydra_arguments(arguments: Sequence[str], command: str = "") -> list[str]:
    r"""Return a command line that Hydra reads as the user meant it.

    Args:
        arguments: what the user typed.
        command: the task, for what its positional arguments stand for.

    Raises:
        ConfigError: an argument is neither `key=value` nor an option, and the command has no place for it.

    Example:
        >>> hydra_arguments(["config.prompt_q=query: "])
        ["config.prompt_q='query: '"]
        >>> hydra_arguments(["my/index", "what's honey?"], "search")
        ["config.index_dir='my/index'", "query='what\\'s honey?'"]
        >>> hydra_arguments(["+config.seed=7", "data.COLLECTION_PATH=my/docs [v2].tsv", "config.eval_metric=nDCG@10"])
        ['++config.seed=7', "data.COLLECTION_PATH='my/docs [v2].tsv'", 'config.eval_metric=[nDCG@10]']
    """
    places = list(POSITIONAL.get(command, ()))
    sweep = any(option in arguments for option in _SWEEP)
    taken: list[str] = []
    value_follows = False
    for argument in arguments:
        override = _OVERRIDE.fullmatch(argument)
        if (value_follows and override is None) or (argument.startswith("-") and argument != "-"):
            taken.append(argument)
            value_follows = not value_follows and argument in _OPTIONS_WITH_VALUE
        elif override is not None:
            value_follows = False
            taken += _override(*override.groups(), sweep=sweep)
        elif argument.startswith("~"):
            taken.append(argument)
        elif places:
            taken.append(f"{places.pop(0)}={_as_text(argument.replace('${', chr(92) + '${'))}")
        else:
            raise ConfigError(_misplaced(argument, command))
    return taken


def given_keys(arguments: Sequence[str]) -> frozenset[str]:
    """Return the keys and groups that a command line sets.

    Example:
        >>> sorted(given_keys(["++config.top_k=5", "train/data=msmarco", "--multirun"]))
        ['config.top_k', 'train/data']
    """
    found = (_OVERRIDE.fullmatch(argument) for argument in arguments if not argument.startswith("-"))
    return frozenset(override[2] for override in found if override is not None)


def _override(sign: str, name: str, value: str, *, sweep: bool) -> Iterator[str]:
    """Yield the overrides that one of a user's stands for."""
    if hint := new_name(name):
        raise ConfigError(f"unknown key '{name}'{hint}")
    kind = _kinds().get(name)
    if sign == "+" and name.split(".")[0] in {known.split(".")[0] for known in _kinds()}:
        sign = "++"
    elif sign == "" and re.fullmatch(r"config\.regularizer(\.\w+){2}", name):
        sign = "++"  # an entry of the configuration may say nothing of this key
    if name in FREE_FORM_KEYS and value.lstrip().startswith("{"):
        yield f"{name}=null"  # a dictionary replaces the one of the configuration; Hydra alone would merge the two
    edged = value != value.strip()  # Hydra would take away the blank that a prompt ends with
    if sign != "~" and kind == "text" and (edged or not _reads_as_one(value, str, sweep)):
        value = _as_text(value)
    elif sign != "~" and kind == "list" and not _reads_as_one(value, list, sweep):
        value = _as_list(value)
    yield f"{sign}{name}={value}"


def _as_list(value: str) -> str:
    """Return a list of the parts of a value, those that Hydra would refuse in quotes; lists in it stay lists."""
    bare = value[1:-1] if re.fullmatch(r"\[.*\]", value, re.DOTALL) else value
    if re.fullmatch(r"\s*\[.*\]\s*", bare, re.DOTALL) and "[[" not in bare:
        parts = [_as_list(inner) for inner in re.findall(r"\[[^][]*\]", bare)]
    else:
        stripped = (part.strip() for part in bare.split(","))
        parts = [part if _reads_as_one(part, str, sweep=False) else _as_text(part) for part in stripped]
    return f"[{','.join(parts)}]"


def _reads_as_one(value: str, kind: type, sweep: bool) -> bool:
    """Whether Hydra reads one value in it that a key of a kind may have, or must refuse, or a sweep's several."""
    try:
        parsed = _parser().parse_override(f"key={value}")
    except HydraException:
        return False
    if parsed.is_sweep_override():
        return sweep
    found = parsed.value()
    if found is None or isinstance(found, dict | bool) or isinstance(found, str) and found.startswith("${"):
        return True
    return isinstance(found, list) is (kind is list)


def _as_text(value: str) -> str:
    """Quote a value as Hydra does: a quote inside has a backslash before it, and so has a backslash before a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def _misplaced(argument: str, command: str) -> str:
    if command in POSITIONAL:
        most = " ".join(name.rpartition(".")[2].upper() for name in POSITIONAL[command])
        quoted = ", the question in quotation marks" if command == "search" else ""
        return f"'{argument}': one argument too many; expected {most}{quoted}"
    return f"'{argument}': expected key=value, group=option, or an option such as --help"


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@cache
def _kinds() -> dict[str, str]:
    """Return for each key whether its values are `text`, a `list` of texts, or neither."""
    kinds = {}
    for key in schema_keys():
        types = [kind for kind in members(key.annotation) if kind is not NoneType]
        kinds[key.name] = "text" if types == [str] else "list" if _is_list(types) else ""
    return kinds


def _is_list(types: Sequence[object]) -> bool:
    return len(types) == 1 and get_origin(types[0]) is list and str in _leaves(types[0])


def _leaves(annotation: object) -> set[object]:
    return {leaf for part in get_args(annotation) for leaf in (_leaves(part) or members(part))}
