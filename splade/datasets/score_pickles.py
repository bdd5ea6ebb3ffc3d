"""Reading published score pickles without running what is in them.

A pickle is a program. The reader here admits only the instructions that a dictionary of numbers needs (dictionaries,
texts, integers, floats, and numpy's scalars, rebuilt by functions of our own); anything else ends the reading before it
is called. Nothing is hashed, compared or shown but texts and numbers: a few bytes can describe a tuple of 2^100 items.

A pickled dictionary is filled a thousand entries at a time. The reader hands these on as they come instead of keeping
them, so a file of any size is read in bounded memory; loaded whole, the published cross-encoder scores of MS MARCO
(160 million pairs) would take 18 GB. The price is the standard library's unpickler in Python instead of C: about eight
minutes for that file, once.
"""

import gzip
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from splade.datasets.nested_json import LARGEST_SCORE, Pairs
from splade.errors import DataError, shown
from splade.storage.text_files import id_text, open_bytes

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
    MemoryError,
)
"""What the standard library's unpickler raises on bytes that are no pickle, or half of one."""
_FORGOTTEN = object()
_LONGEST_ENTRY = 1 << 26
"""Bytes of a pickle between two entries of dictionaries: they are put there a thousand at a time."""


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
        query_id = id_text(key, str(file))
        place = f"{file}: query '{query_id}'"
        if not isinstance(documents, dict):
            raise DataError(f"{place}: expected {{doc_id: score}}, got {shown(documents)}")
        pairs = [(id_text(doc_id, place), _as_score(score, place)) for doc_id, score in documents.items()]
        if len(dict(pairs)) < len(pairs):
            raise DataError(f"{place}: a document id occurs twice, as a text and as a number")
        add(query_id, pairs)

    with open_bytes(file) as stream:
        try:
            unpickler = _ScoreUnpickler(_Bounded(stream), checked)
            rest = unpickler.load()
            if not isinstance(rest, dict):
                raise DataError(f"{file}: expected {{query_id: {{doc_id: score}}}}, got {shown(rest)}")
            for key, documents in rest.items():
                checked(key, documents)
            if unpickler.read(1):
                raise DataError(f"{file}: something follows the end of the pickle; expected one dictionary")
        except DataError:
            raise
        except _BROKEN as error:
            raise DataError(f"{file}: unreadable pickle: {error or type(error).__name__}") from error


class _Bounded:
    """A stream that ends the reading when one entry takes too many bytes.

    Attributes:
        n_bytes: read since the last number was put into a dictionary.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.n_bytes = 0

    def read(self, size: int) -> bytes:
        self._count(size)
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(_LONGEST_ENTRY)
        self._count(len(line))
        return line

    def _count(self, size: int) -> None:
        self.n_bytes += size
        if self.n_bytes > _LONGEST_ENTRY:
            raise pickle.UnpicklingError(f"an entry of more than {_LONGEST_ENTRY >> 20} MiB")


_OPCODES = frozenset(
    getattr(pickle, name)
    for name in (
        "PROTO FRAME STOP MARK EMPTY_DICT DICT SETITEM SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT NEWTRUE NEWFALSE NONE "
        "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
        "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS GLOBAL STACK_GLOBAL REDUCE BUILD"
    ).split()
)


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
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Any]] = {
        opcode: function
        for opcode, function in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined]
        if bytes([opcode]) in _OPCODES
    }

    def __init__(self, stream: _Bounded, handle: Callable[[Any, Any], None]):
        super().__init__(stream)
        self._source = stream
        self._handle = handle
        self.memo = _Memo()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(
                f"it asks for {module[:40]}.{name[:40]}, which is refused; "
                "a score file holds dictionaries, texts and numbers"
            )
        return admitted

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _new_dict(self) -> None:
        if self.pop_mark():
            raise pickle.UnpicklingError("it holds a dictionary in an unknown form")
        self.stack.append({})

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _NumberType):
            raise pickle.UnpicklingError(f"it changes {shown(made)}, which is refused")
        made.__setstate__(state)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        self._source.n_bytes = 0
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise pickle.UnpicklingError(f"an id must be text or an integer, got {shown(key)}")
        # Nothing below it: the outermost dictionary, and what it is given is complete.
        if len(self.stack) == 1 and not self.metastack:
            self._handle(key, value)
        else:
            holder = self.stack[-1]
            if not isinstance(holder, dict) or key in holder:
                raise pickle.UnpicklingError(f"the id {shown(key)} occurs twice, or outside a dictionary")
            holder[key] = value

    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.DICT[0]] = _new_dict
    dispatch[pickle.BUILD[0]] = _build


class _NumberType:
    """Stands in for `numpy.dtype`, whose own `__setstate__` trusts what it is given."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or re.fullmatch("[fiu][1248]", code) is None:
            raise pickle.UnpicklingError(f"it asks for the numpy type {shown(code)}, which is refused")
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


def _empty_dictionary(*arguments: Any) -> dict[Any, Any]:
    """Stand in for `defaultdict` (which is given a type) and the like; their entries follow."""
    if not all(callable(argument) for argument in arguments):
        raise pickle.UnpicklingError("it holds a dictionary in an unknown form")
    return {}


def _type_of_values(*arguments: Any) -> None:
    raise pickle.UnpicklingError("it makes a number in an unknown form")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "defaultdict"): _empty_dictionary,
    ("collections", "OrderedDict"): _empty_dictionary,
    ("builtins", "dict"): _empty_dictionary,
    ("builtins", "float"): _type_of_values,
    ("builtins", "int"): _type_of_values,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


def _as_score(score: Any, place: str) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not -LARGEST_SCORE <= score <= LARGEST_SCORE:
        raise DataError(f"{place}: a score must be a finite number, got {shown(score)} (at most {LARGEST_SCORE:.3g})")
    return float(score)
