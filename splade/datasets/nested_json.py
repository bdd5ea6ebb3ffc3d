"""Reading `{outer: {inner: number}}` from JSON of any size: the form of qrels, runs and teacher scores.

The file is read in pieces and one outer entry is decoded at a time, so memory is bounded by the largest entry and the
size of a piece, not by the file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from splade.errors import DataError, shown
from splade.storage.text_files import BOM, check_id, json_limit, open_bytes

PIECE = 1 << 20
_BLANKS = re.compile("[ \t\r\n]*")
_EXCERPT = 40
_LONGEST_TOKEN = 16
"""Characters that a decoder looks at together, at most: an escaped surrogate pair has 12."""

LARGEST_SCORE = 3.4028234663852886e38
"""The largest float32: scores are kept, and ranked by trec_eval, as such."""

Pairs = list[tuple[str, float]]


def iterate_nested(file: Path) -> Iterator[tuple[str, Pairs]]:
    """Yield (outer key, its (inner key, number) pairs) in the order of the file.

    Raises:
        DataError: not JSON of this form (with what stands at the fault), a key twice, a key that is no possible id, a
            value that is not a number or too large for float32.
    """
    window, seen = _Window(file), set[str]()
    window.expect("{")
    if window.peek() == "}":
        window.expect("}")
    else:
        while True:
            key = window.decode()
            if not isinstance(key, str):
                raise window.fault("expected a key in quotes")
            window.expect(":")
            value = window.decode()
            if not isinstance(value, _Object):
                raise DataError(f"{file}: {shown(key)}: expected an object {{id: number}}, got {shown(value)}")
            _check(file, key, value.pairs)
            if key in seen:
                raise DataError(f"{file}: the query '{key}' occurs twice")
            seen.add(key)
            yield key, value.pairs
            if window.peek() == "}":
                window.expect("}")
                break
            window.expect(",")
    if window.peek():
        raise window.fault("something follows the closing brace")


class _Object:
    """A JSON object as the list of its pairs: repeated keys are still there, and no dictionary is built."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs


_DECODER = json.JSONDecoder(object_pairs_hook=_Object)


class _Window:
    """The part of a JSON text that has been read and not yet decoded."""

    def __init__(self, file: Path):
        self.file = file
        self._text, self._position, self._dropped = "", 0, 0
        self._pieces = _pieces(file)

    def peek(self) -> str:
        """Skip blanks and return the next character, or an empty string at the end of the file."""
        while True:
            self._position = _BLANKS.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._read_more():
                return self._text[self._position : self._position + 1]

    def expect(self, character: str) -> None:
        """Consume one character."""
        if self.peek() != character:
            raise self.fault(f"expected '{character}'")
        self._position += 1

    def decode(self) -> object:
        """Decode the next value.

        It may reach beyond what has been read, which looks like a fault near the end of the window. A fault is real
        when a whole token was there to read; for a string that is not closed the end of the file decides.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
                if end < len(self._text) or not self._read_more():
                    self._position = end
                    return value
            except json.JSONDecodeError as error:
                fault = self._dropped + error.pos
                real = len(self._text) - error.pos > _LONGEST_TOKEN and not error.msg.startswith("Unterminated string")
                if real or not self._read_more():
                    self._position = fault - self._dropped
                    raise self.fault(f"not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                raise self.fault(json_limit(error)) from error

    def fault(self, what: str) -> DataError:
        """Return the error for what stands at the current position."""
        there = self._text[self._position : self._position + _EXCERPT]
        return DataError(
            f"{self.file}: character {self._dropped + self._position + 1}: {what}; there is {there!r}"
            if there
            else f"{self.file}: {what} at the end of the file: it is cut short or not the expected JSON"
        )

    def _read_more(self) -> bool:
        """Read at least as much as is pending, so that an entry of any length is tried only a few times."""
        pending = self._text[self._position :]
        pieces, n_read = [pending], 0
        for piece in self._pieces:
            pieces.append(piece)
            n_read += len(piece)
            if n_read and n_read >= len(pending):
                break
        self._dropped += self._position
        self._text, self._position = "".join(pieces), 0
        return n_read > 0


def _pieces(file: Path) -> Iterator[str]:
    """Yield the text of the file in pieces that end between two characters."""
    rest, position = b"", 0
    with open_bytes(file) as stream:
        while True:
            data = rest + stream.read(PIECE)
            at_end = len(data) == len(rest)
            if position == 0:
                data = data.removeprefix(BOM)
            try:
                yield data.decode("utf-8")
                rest = b""
            except UnicodeDecodeError as error:
                if at_end or error.start < len(data) - 3:
                    raise DataError(f"{file}: byte {position + error.start + 1} is not UTF-8") from error
                rest = data[error.start :]
                yield data[: error.start].decode("utf-8")
            position += len(data) - len(rest)
            if at_end:
                return


def _check(file: Path, outer: str, pairs: Pairs) -> None:
    check_id(outer, str(file))
    if len({inner for inner, _ in pairs}) != len(pairs):
        raise DataError(f"{file}: '{outer}': the id '{_first_repeated(pairs)}' occurs twice")
    for inner, number in pairs:
        if not inner.isprintable() or " " in inner or not inner:
            check_id(inner, f"{file}: '{outer}'")
        if type(number) not in (int, float) or not -LARGEST_SCORE <= number <= LARGEST_SCORE:
            given = "an object" if isinstance(number, _Object) else shown(number)
            place = f"{file}: '{outer}': {shown(inner)}"
            raise DataError(f"{place}: expected a finite number, got {given} (at most {LARGEST_SCORE:.3g})")


def _first_repeated(pairs: Pairs) -> str:
    seen: set[str] = set()
    return next(inner for inner, _ in pairs if inner in seen or seen.add(inner))  # type: ignore[func-returns-value]
