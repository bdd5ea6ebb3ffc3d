"""Reading published score pickles without running what is in them.

A pickle is a program. The reader here admits only what a dictionary of numbers needs (dictionaries, texts, integers,
floats, and numpy's scalars, rebuilt by functions of our own); anything else ends the reading before it is called.

A pickled dictionary is filled a thousand entries at a time. The reader hands these on as they come instead of keeping
them, so a file of any size is read in bounded memory; loaded whole, the published cross-encoder scores of MS MARCO
(160 million pairs) would take 18 GB. The price is the standard library's unpickler in Python instead of C: about eight
minutes for that file, once.
"""

import gzip
import pickle
import re
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from splade.datasets.nested_json import Pairs
from splade.errors import DataError
from splade.storage.text_files import check_id, open_bytes

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
_FORGOTTEN = object()


def is_pickle(file: Path) -> bool:
    """Tell a pickle by its first byte (protocol 2 or later) or by `.pkl` or `.pickle` in its name."""
    if {".pkl", ".pickle"} & set(file.suffixes):
        return True
    with open_bytes(file) as stream:
        return stream.read(1) == _PROTOCOL_MARK


def read_pickle(file: Path, add: Callable[[str, Pairs], None]) -> None:
    """Call `add(query id, its (doc id, score) pairs)` for every query; integer ids become text.

    Raises:
        DataError: damaged, or anything but a dictionary of dictionaries of finite numbers.
    """

    def checked(key: Any, documents: Any) -> None:
        query_id = _as_id(key, str(file))
        place = f"{file}: query '{query_id}'"
        if not isinstance(documents, dict):
            raise DataError(f"{place}: expected {{doc_id: score}}, got a {type(documents).__name__}")
        add(query_id, [(_as_id(doc_id, place), _as_score(score, place)) for doc_id, score in documents.items()])

    with open_bytes(file) as stream:
        try:
            rest = _ScoreUnpickler(stream, checked).load()
        except DataError:
            raise
        except _BROKEN as error:
            raise DataError(f"{file}: unreadable pickle: {error or type(error).__name__}") from error
    if not isinstance(rest, dict):
        raise DataError(f"{file}: expected {{query_id: {{doc_id: score}}}}, got a {type(rest).__name__}")
    for key, documents in rest.items():
        checked(key, documents)


class _Memo(dict[int, Any]):
    """What a pickle may refer back to, without the dictionaries: they would all be kept until the end."""

    def __setitem__(self, place: int, value: Any) -> None:
        super().__setitem__(place, _FORGOTTEN if isinstance(value, dict) else value)

    def __getitem__(self, place: int) -> Any:
        value = super().__getitem__(place)
        if value is _FORGOTTEN:
            raise pickle.UnpicklingError("two entries share one dictionary object; pickle copies, or write JSON")
        return value


class _ScoreUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Passes the entries of the outermost dictionary on when they are complete; `load` returns what is left of it."""

    stack: list[Any]
    metastack: list[list[Any]]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, stream: BinaryIO, handle: Callable[[Any, Any], None]):
        super().__init__(stream)
        self._handle = handle
        self.memo = _Memo()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is refused; a score file holds dictionaries, texts and numbers"
            )
        return admitted

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        # Nothing below it: the outermost dictionary, and what it is given is complete.
        if len(self.stack) == 1 and not self.metastack:
            self._handle(key, value)
        else:
            self.stack[-1][key] = value

    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.SETITEM[0]] = _set_item


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
