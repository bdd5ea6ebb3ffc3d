"""The names of metrics: trec_eval's own, the spelling of ir_measures, and `mrr_10`.

A name becomes one or several `Measure`s, each of which says what pytrec_eval is to be asked and under which key it
answers. Three spellings are understood:

- what pytrec_eval knows, `ndcg_cut_10`, `recall.5,100`, `map`, also whole families (`recall` is `recall_5` to
  `recall_1000`) and groups (`official`, `all_trec`);
- `mrr_10`, `mrr`: reciprocal rank, over the run cut at 10 or whole;
- the spelling of ir_measures, `nDCG@10`, `RR(rel=2)@10`, `AP`, also in lower case and under the usual other names
  (`recall@100`, `MAP@100`, `MRR@10`, `R_cap@100`).
"""

import re
from collections.abc import Callable, Sequence
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
        relevance_level: smallest judgement that counts as relevant (nDCG takes the judgements as gains regardless).
        judged_only: documents without a judgement are removed from the run first.
    """

    name: str
    trec_name: str
    trec_key: str
    rank_cut: int | None = None
    relevance_level: int = 1
    judged_only: bool = False


# Texts, not numbers: pytrec_eval reports 0 for both.
_NOT_NUMBERS = frozenset({"runid", "relstring"})
_RANK_FAMILIES = frozenset({"P", "recall", "ndcg_cut", "map_cut", "relative_P", "success"})
_REAL_FAMILIES = frozenset({"iprec_at_recall", "Rprec_mult", "set_F"})
_LARGEST_CUT = 10**9

# ir_measures' names in lower case, with the other usual names: (without a cut, with a cut); None where it has none.
_IR_MEASURES: dict[str, tuple[str | None, str | None]] = {
    "ap": ("map", "map_cut"),
    "map": ("map", "map_cut"),
    "ndcg": ("ndcg", "ndcg_cut"),
    "rr": ("recip_rank", "recip_rank"),
    "mrr": ("recip_rank", "recip_rank"),
    "r": (None, "recall"),
    "recall": (None, "recall"),
    "p": (None, "P"),
    "precision": (None, "P"),
    "success": (None, "success"),
    "r_cap": (None, "relative_P"),
    "iprec": (None, "iprec_at_recall"),
    "rprec": ("Rprec", None),
    "bpref": ("bpref", None),
    "infap": ("infAP", None),
    "setp": ("set_P", None),
    "setr": ("set_recall", None),
    "setf": ("set_F", None),
    "setap": ("set_map", None),
    "numq": ("num_q", None),
    "numrel": ("num_rel", None),
    "numret": ("num_ret", None),
}
_IR_SPELLING = re.compile(r"([A-Za-z_]+)(?:\(([^()]*)\))?(?:@([0-9.]+))?")
_MRR_SPELLING = re.compile(r"mrr(?:_([0-9]+))?", re.IGNORECASE)
_TREC_ARGUMENTS = re.compile(r"[._]([0-9]+(?:\.[0-9]+)?(?:,[0-9]+(?:\.[0-9]+)?)*)")

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
    readers: tuple[Callable[[str], tuple[Measure, ...] | None], ...]
    readers = (_parse_trec, _parse_mrr, _parse_ir_measures, _parse_trec_any_case)
    for read in readers:
        measures = read(spelling)
        if measures is not None:
            return measures
    known = [*_EXAMPLES, *pytrec_eval.supported_measures, *pytrec_eval.supported_nicknames]
    close = nearest(spelling, known) or nearest(spelling.lower(), known)
    raise ConfigError(
        f"unknown metric {name!r}{close}. Allowed are the names of trec_eval (ndcg_cut_10, recall_1000, map; recall "
        "for all its cuts), of ir_measures (nDCG@10, RR@10, R@1000, AP) and mrr_10"
    )


def largest_cut(names: Sequence[str]) -> int:
    """Return the deepest rank that any of the metrics looks at, 0 when none has a cut.

    Retrieving fewer documents per query than this makes the metric's value too low.
    """
    cuts = [0]
    for measure in parse_metrics(names):
        if measure.rank_cut is not None:
            cuts.append(measure.rank_cut)
        family, _, argument = measure.trec_key.rpartition("_")
        if family in _RANK_FAMILIES:
            cuts.append(int(argument))
    return max(cuts)


def _parse_trec(spelling: str) -> tuple[Measure, ...] | None:
    """Read a name exactly as pytrec_eval spells it."""
    if spelling in _NOT_NUMBERS:
        raise ConfigError(f"metric {spelling!r} is a text, not a number; leave it out")
    if spelling in pytrec_eval.supported_measures or spelling in pytrec_eval.supported_nicknames:
        return _expand(spelling, spelling)
    for family in _RANK_FAMILIES | _REAL_FAMILIES:
        match = _TREC_ARGUMENTS.fullmatch(spelling.removeprefix(family)) if spelling.startswith(family) else None
        if match is not None:
            return _expand(spelling, f"{family}.{_arguments(spelling, family, match[1])}")
    return None


def _parse_trec_any_case(spelling: str) -> tuple[Measure, ...] | None:
    """Read a name of pytrec_eval in other case: `NDCG_CUT_10`, `Recall`."""
    known = [*pytrec_eval.supported_measures, *pytrec_eval.supported_nicknames]
    for proper in sorted(known, key=len, reverse=True):
        if spelling.lower().startswith(proper.lower()):
            measures = _parse_trec(proper + spelling[len(proper) :])
            if measures is not None:
                return (replace(measures[0], name=spelling),) if len(measures) == 1 else measures
    return None


def _parse_mrr(spelling: str) -> tuple[Measure, ...] | None:
    match = _MRR_SPELLING.fullmatch(spelling)
    if match is None:
        return None
    cut = None if match[1] is None else _rank(spelling, match[1])
    return (Measure(spelling, "recip_rank", "recip_rank", rank_cut=cut),)


def _parse_ir_measures(spelling: str) -> tuple[Measure, ...] | None:
    match = _IR_SPELLING.fullmatch(spelling)
    if match is None or match[1].lower() not in _IR_MEASURES:
        return None
    without_cut, with_cut = _IR_MEASURES[match[1].lower()]
    options = _options(spelling, match[2] or "")
    level, judged_only = int(options.pop("rel", 1)), bool(options.pop("judged_only", False))
    beta, relative = options.pop("beta", None), bool(options.pop("relative", False))
    if beta is not None and without_cut == "set_F":
        without_cut = f"set_F.{beta}"
    if relative and without_cut == "set_P":
        without_cut = "set_relative_P"
    if "rel" in (match[2] or "") and without_cut == "num_ret":
        without_cut = "num_rel_ret"
    if match[3] is None:
        if without_cut is None:
            # `Recall` and `Success` are families of trec_eval; `R` and `P` alone say too little.
            return None
        (measure,) = _expand(spelling, without_cut)
        return (replace(measure, relevance_level=level, judged_only=judged_only),)
    if with_cut is None:
        raise ConfigError(f"metric {spelling!r}: {match[1]} takes no cut '@{match[3]}'")
    if with_cut == "recip_rank":
        return (Measure(spelling, with_cut, with_cut, _rank(spelling, match[3]), level, judged_only),)
    (measure,) = _expand(spelling, f"{with_cut}.{_arguments(spelling, with_cut, match[3])}")
    return (replace(measure, relevance_level=level, judged_only=judged_only),)


def _options(spelling: str, text: str) -> dict[str, float]:
    """Read `rel=2,judged_only=True`."""
    readers: dict[str, Callable[[str], float]] = {
        "rel": lambda value: _rank(spelling, value),
        "beta": float,
        "judged_only": {"true": True, "false": False}.__getitem__,
        "relative": {"true": True, "false": False}.__getitem__,
    }
    options: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in readers:
            raise ConfigError(
                f"metric {spelling!r}: unknown parameter {part!r}; known are rel, judged_only, beta, relative"
            )
        try:
            options[key] = readers[key](value.lower())
        except (KeyError, ValueError) as error:
            raise ConfigError(f"metric {spelling!r}: {value!r} is not a value of {key}") from error
    return options


def _arguments(spelling: str, family: str, text: str) -> str:
    """Check the cuts or levels of a family. trec_eval would end the whole process on a cut of zero."""
    if family in _RANK_FAMILIES:
        return ",".join(str(_rank(spelling, argument)) for argument in text.split(","))
    levels = text.split(",")
    if family == "set_F" and len(levels) > 1:
        raise ConfigError(f"metric {spelling!r}: set_F takes one beta")
    if family == "iprec_at_recall" and any(float(level) > 1.0 for level in levels):
        raise ConfigError(f"metric {spelling!r}: a recall level lies between 0 and 1")
    return text


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
    return tuple(Measure(key, trec_name, key) for key in keys)
