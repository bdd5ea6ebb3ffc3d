"""Reading published score pickles without running what is in them.

A pickle is a program. The reader here admits only what a dictionary of numbers needs (dictionaries, texts, integers,
floats, and numpy's scalars, rebuilt by functions of our own); anything else ends the reading before it is called.
"""

import gzip
import pickle
import re
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from splade.datasets.nested_json import Pairs
from splade.datasets.text_files import check_id, open_bytes
from splade.errors import DataError

_PROTOCOL_MARK = b"\x80"
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
)
"""What the standard library's unpickler raises on bytes that are no pickle, or half of one."""


def is_pickle(file: Path) -> bool:
    """Tell a pickle by its first byte (protocol 2 or later) or by `.pkl` or `.pickle` in its name."""
    if {".pkl", ".pickle"} & set(file.suffixes):
        return True
    with open_bytes(file) as stream:
        try:
            return stream.read(1) == _PROTOCOL_MARK
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return False


def iterate_pickle(file: Path) -> Iterator[tuple[str, Pairs]]:
    """Yield (query id, its (doc id, score) pairs); integer ids become text. The whole pickle is loaded first.

    Raises:
        DataError: damaged, or anything but a dictionary of dictionaries of finite numbers.
    """
    content = _load(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected {{query_id: {{doc_id: score}}}}, got a {type(content).__name__}")
    for key in list(content):
        query_id = _as_id(key, str(file))
        # Popped, so that memory is freed while the conversion goes on.
        documents = content.pop(key)
        place = f"{file}: query '{query_id}'"
        if not isinstance(documents, dict):
            raise DataError(f"{place}: expected {{doc_id: score}}, got a {type(documents).__name__}")
        yield query_id, [(_as_id(doc_id, place), _as_score(score, place)) for doc_id, score in documents.items()]


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is refused; a score file holds dictionaries, texts and numbers"
            )
        return admitted


def _load(file: Path) -> Any:
    try:
        with open_bytes(file) as stream:
            return _PlainUnpickler(stream).load()
    except _BROKEN as error:
        raise DataError(f"{file}: unreadable pickle: {error or type(error).__name__}") from error


class _NumberType:
    """Stands in for `numpy.dtype`, whose own `__setstate__` trusts what it is given."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or re.fullmatch("[fiu][1248]", code) is None:
            raise pickle.UnpicklingError(f"it asks for the numpy type {code!r}, which is refused")
        self._code = code
        self._byte_order = "="

    def __setstate__(self, state: Any) -> None:
        byte_order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if byte_order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it holds a numpy type in an unknown form")
        self._byte_order = byte_order

    def number(self, data: Any) -> int | float:
        dtype = np.dtype(self._byte_order + self._code)
        if not isinstance(data, bytes) or len(data) != dtype.itemsize:
            raise pickle.UnpicklingError("it holds a numpy number of a wrong length")
        return np.frombuffer(data, dtype)[0].item()


def _scalar(number_type: Any, data: Any) -> int | float:
    if not isinstance(number_type, _NumberType):
        raise pickle.UnpicklingError("it holds a numpy scalar that is not a number")
    return number_type.number(data)


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "defaultdict"): defaultdict,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "dict"): dict,
    ("builtins", "float"): float,
    ("builtins", "int"): int,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


def _as_id(some_id: Any, place: str) -> str:
    if isinstance(some_id, bool) or not isinstance(some_id, str | int):
        raise DataError(f"{place}: an id must be text or an integer, got {some_id!r}")
    check_id(str(some_id), place)
    return str(some_id)


def _as_score(score: Any, place: str) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
        raise DataError(f"{place}: a score must be a finite number, got {score!r}")
    return float(score)
