"""The names of metrics: trec_eval's own, the spelling of ir_measures, and `mrr_10`.

A name becomes one or several `Measure`s, each of which says what pytrec_eval is to be asked and under which key it
answers. In any case of letters, these spellings are understood:

- what pytrec_eval knows, `ndcg_cut_10`, `recall.5,100`, `map`, also whole families (`recall` is `recall_5` to
  `recall_1000`) and groups (`official`, `all_trec`);
- `mrr_10`, `mrr`: reciprocal rank, over the run cut at 10 or whole;
- the spelling of ir_measures, `nDCG@10`, `RR(rel=2)@10`, `AP`, also under the usual other names (`recall@100`,
  `MAP@100`, `MRR@10`, `R_cap@100`).

The library ir_measures would not do: it ranks equal scores another way for RR@10, lacks `R_cap` and a dozen measures of
`official` and `all_trec`, and knows no lower case.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytrec_eval

from splade.errors import ConfigError, nearest


@dataclass(frozen=True)
class Measure:
    """One number per query, as pytrec_eval computes it.

    Attributes:
        name: the key under which results are reported, as the user spelt it.
        trec_name: what pytrec_eval is asked for, for instance `ndcg_cut.10`.
        trec_key: the key under which pytrec_eval answers, for instance `ndcg_cut_10`.
        rank_cut: a reciprocal rank below 1 / rank_cut counts as zero; None leaves the value as it is.
        relevance_level: smallest relevance that counts as relevant (nDCG takes relevances as gains regardless).
    """

    name: str
    trec_name: str
    trec_key: str
    rank_cut: int | None = None
    relevance_level: int = 1


# Texts, not numbers: pytrec_eval reports 0 for both.
_NOT_NUMBERS = frozenset({"runid", "relstring"})
_RANK_FAMILIES = frozenset({"P", "recall", "ndcg_cut", "map_cut", "relative_P", "success"})
_REAL_FAMILIES = frozenset({"iprec_at_recall", "Rprec_mult"})
_LARGEST_CUT = 10**9

_TREC_NAMES = {name.lower(): name for name in [*pytrec_eval.supported_nicknames, *pytrec_eval.supported_measures]}
_TREC_ARGUMENTS = re.compile(r"(\w+?)[._]((?:[0-9]+(?:\.[0-9]+)?,)*[0-9]+(?:\.[0-9]+)?)")

# ir_measures' names and the usual other ones, in lower case; with a cut, two of them are another family.
_IR_NAMES = {
    **{"ap": "map", "map": "map", "ndcg": "ndcg", "rr": "recip_rank", "mrr": "recip_rank", "r": "recall"},
    **{"recall": "recall", "p": "P", "precision": "P", "success": "success", "r_cap": "relative_P"},
    **{"rprec": "Rprec", "bpref": "bpref", "infap": "infAP"},
}
_WITH_CUT = {"map": "map_cut", "ndcg": "ndcg_cut"}
_DISPLAYED = {
    **{"ndcg": "nDCG", "ndcg_cut": "nDCG", "map": "AP", "map_cut": "AP", "recip_rank": "MRR", "recall": "R"},
    **{"P": "P", "success": "Success", "relative_P": "R_cap"},
}
_IR_SPELLING = re.compile(r"([A-Za-z_]+)(?:\(([^()]*)\))?(?:@([0-9.]+))?")

_EXAMPLES = (
    "mrr_10 MRR@10 RR@10 nDCG@10 ndcg_cut_10 R@100 R@1000 recall_100 recall_1000 recall ndcg_cut AP AP@100 map map_cut "
    "P@5 P_10 Rprec bpref recip_rank Success@5 R_cap@100 official all_trec set_F iprec_at_recall num_ret num_rel"
).split()


def parse_metrics(names: Sequence[str]) -> tuple[Measure, ...]:
    """Resolve several names, in order; a measure that is reached twice is kept once.

    Raises:
        ConfigError: a name is unknown (the nearest known one is named), or there is none at all.
    """
    if isinstance(names, str):
        raise ConfigError(f"metrics are a list of names, but got the text {names!r}; write [{names}]")
    measures = {measure.name: measure for name in names for measure in parse_metric(name)}
    if not measures:
        raise ConfigError(f"no metric was asked for; some that are known: {', '.join(_EXAMPLES[:12])}")
    return tuple(measures.values())


def parse_metric(name: str) -> tuple[Measure, ...]:
    """Resolve one name; a family such as `recall` gives one measure per cut.

    Raises:
        ConfigError: the name is unknown, or its cut or parameter is not possible.

    Example:
        >>> [measure.trec_key for measure in parse_metric("nDCG@10")]
        ['ndcg_cut_10']
        >>> [measure.name for measure in parse_metric("success")]
        ['success_1', 'success_5', 'success_10']
    """
    if not isinstance(name, str):
        raise ConfigError(f"a metric is a name such as 'nDCG@10', but got {name!r}")
    spelling = name.strip()
    measures = _parse_trec(spelling) or _parse_ir_measures(spelling)
    if measures is not None:
        return measures
    known = [*_EXAMPLES, *_TREC_NAMES.values()]
    close = nearest(spelling, known) or "."
    raise ConfigError(
        f"unknown metric {name!r}{close} Allowed are the names of trec_eval (ndcg_cut_10, recall_1000, map; recall for "
        "all its cuts), of ir_measures (nDCG@10, RR@10, R@1000, AP) and mrr_10"
    )


def display_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each metric the one spelling that tables and summaries use; files keep the user's.

    What is no metric, and two spellings of the same one side by side, stay as they are.

    Example:
        >>> display_names(["mrr_10", "ndcg_cut_10", "Recall@100", "AP(rel=2)", "loss"]).values()
        dict_values(['MRR@10', 'nDCG@10', 'R@100', 'AP(rel=2)', 'loss'])
    """
    shown = {name: _display_name(name) for name in names}
    spellings = list(shown.values())
    return {name: spelling if spellings.count(spelling) == 1 else name for name, spelling in shown.items()}


def _display_name(name: str) -> str:
    try:
        measures = parse_metric(name)
    except ConfigError:
        return name
    if len(measures) > 1:
        return name
    measure = measures[0]
    family, _, cut = measure.trec_key.rpartition("_")
    if measure.rank_cut is not None:
        family, cut = measure.trec_key, str(measure.rank_cut)
    elif family not in _RANK_FAMILIES:
        family, cut = measure.trec_key, ""
    if family not in _DISPLAYED:
        return name
    level = f"(rel={measure.relevance_level})" if measure.relevance_level > 1 else ""
    return _DISPLAYED[family] + level + (f"@{cut}" if cut else "")


def largest_cut(names: Sequence[str]) -> int:
    """Return the deepest rank that any of the metrics looks at, 0 when none has a cut.

    Retrieving fewer documents per query than this makes the metric's value too low.
    """
    cuts = [0]
    for measure in parse_metrics(names):
        family, _, argument = measure.trec_key.rpartition("_")
        if measure.rank_cut is not None:
            cuts.append(measure.rank_cut)
        elif family in _RANK_FAMILIES:
            cuts.append(int(argument))
    return max(cuts)


def _parse_trec(spelling: str) -> tuple[Measure, ...] | None:
    """Read a name of pytrec_eval, alone or with cuts."""
    name = _TREC_NAMES.get(spelling.lower())
    if name in _NOT_NUMBERS:
        raise ConfigError(f"metric {spelling!r} is a text, not a number; leave it out")
    if name is not None:
        return _expand(spelling, name)
    match = _TREC_ARGUMENTS.fullmatch(spelling)
    family = _TREC_NAMES.get(match[1].lower()) if match is not None else None
    if match is None or family not in _RANK_FAMILIES | _REAL_FAMILIES:
        return None
    return _expand(spelling, _with_arguments(spelling, family, match[2]))


def _parse_ir_measures(spelling: str) -> tuple[Measure, ...] | None:
    """Read a name as ir_measures spells it, or `mrr_10`."""
    match = _IR_SPELLING.fullmatch(re.sub("^(mrr)_(?=[0-9]+$)", r"\1@", spelling, flags=re.IGNORECASE))
    name = _IR_NAMES.get(match[1].lower()) if match is not None else None
    if match is None or name is None:
        return None
    level = 1 if match[2] is None else _relevance_level(spelling, match[2])
    cut = match[3]
    if cut is not None:
        name = _WITH_CUT.get(name, name)
        if name == "recip_rank":
            return (Measure(spelling, name, name, _rank(spelling, cut), level),)
        if name not in _RANK_FAMILIES:
            raise ConfigError(f"metric {spelling!r}: {match[1]} takes no cut '@{cut}'")
        name = _with_arguments(spelling, name, cut)
    elif name in _RANK_FAMILIES:
        return None  # `R` and `P` alone say too little
    (measure,) = _expand(spelling, name)
    return (replace(measure, relevance_level=level),)


def _relevance_level(spelling: str, parameters: str) -> int:
    """Read `rel=2`."""
    key, _, value = map(str.strip, parameters.partition("="))
    if key != "rel":
        raise ConfigError(f"metric {spelling!r}: unknown parameter {parameters!r}; known is rel")
    if re.fullmatch("[1-9][0-9]{0,8}", value) is None:
        raise ConfigError(f"metric {spelling!r}: {value!r} is not a value of rel")
    return int(value)


def _with_arguments(spelling: str, family: str, text: str) -> str:
    """Return `recall.5,100`, cuts or levels checked: trec_eval would end the whole process on a cut of zero."""
    values = text.split(",")
    if family in _RANK_FAMILIES:
        values = [str(_rank(spelling, value)) for value in values]
    elif family == "iprec_at_recall" and any(float(value) > 1.0 for value in values):
        raise ConfigError(f"metric {spelling!r}: a recall level lies between 0 and 1")
    return f"{family}.{','.join(values)}"


def _rank(spelling: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_CUT:
        raise ConfigError(f"metric {spelling!r}: {text!r} must be a whole number of at least 1")
    return int(text)


@cache
def _expand(spelling: str, trec_name: str) -> tuple[Measure, ...]:
    """Ask pytrec_eval, on one judged document, under which keys it answers to `trec_name`."""
    try:
        answer = pytrec_eval.RelevanceEvaluator({"q": {"d": 1}}, {trec_name}).evaluate({"q": {"d": 1.0}})["q"]
    except ValueError as error:
        raise ConfigError(f"metric {spelling!r}: this build of pytrec_eval does not support it ({error})") from error
    keys = [key for key in answer if key not in _NOT_NUMBERS]
    if len(keys) == 1:
        return (Measure(spelling, trec_name, keys[0]),)
    return tuple(Measure(key, _trec_name(key), key) for key in keys)


def _trec_name(key: str) -> str:
    """Return how to ask for one key: beside `recall.7`, pytrec_eval would forget the usual cuts of `recall`."""
    family, _, argument = key.rpartition("_")
    return f"{family}.{argument}" if family in _RANK_FAMILIES | _REAL_FAMILIES else key
