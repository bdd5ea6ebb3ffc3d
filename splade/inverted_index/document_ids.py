"""The users' document ids: any strings, kept as one block of UTF-8 bytes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from splade.errors import DataError
from splade.storage.compiled import compiled


@dataclass(frozen=True)
class DocumentIds:
    """Strings numbered from 0.

    Attributes:
        text: uint8, the UTF-8 bytes of all ids, one after the other.
        ends: int64, for each id the position after its last byte.

    Example:
        >>> ids = DocumentIds.from_strings(["7", "é"])
        >>> len(ids), ids[1], ids.strings(np.array([1, 0]))
        (2, 'é', ['é', '7'])
    """

    text: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = self.ends[i - 1] if i > 0 else 0
        return self.text[start : self.ends[i]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def strings(self, chosen: np.ndarray) -> list[str]:
        """Return the ids whose numbers are given, in that order."""
        starts = np.where(chosen > 0, self.ends[chosen - 1], 0)
        text, spans = self.text.data, zip(starts.tolist(), self.ends[chosen].tolist(), strict=True)
        return [str(text[start:end], "utf-8", "surrogatepass") for start, end in spans]

    @classmethod
    def from_strings(cls, doc_ids: Sequence[str]) -> "DocumentIds":
        """Encode strings.

        Raises:
            DataError: an id is not a string.
        """
        try:
            joined = "".join(doc_ids)
        except TypeError as error:
            wrong = next(doc_id for doc_id in doc_ids if not isinstance(doc_id, str))
            raise DataError(f"document ids are strings; given {wrong!r} ({type(wrong).__name__})") from error
        if joined.isascii():
            lengths = np.fromiter(map(len, doc_ids), np.int64, len(doc_ids))
        else:
            encoded = (doc_id.encode("utf-8", "surrogatepass") for doc_id in doc_ids)
            lengths = np.fromiter(map(len, encoded), np.int64, len(doc_ids))
        text = np.frombuffer(joined.encode("utf-8", "surrogatepass"), np.uint8)
        return cls(text, np.cumsum(lengths))

    @classmethod
    def concatenate(cls, parts: Sequence["DocumentIds"]) -> "DocumentIds":
        """Number the ids of all parts consecutively."""
        bases = np.cumsum([0, *(len(part.text) for part in parts)])
        ends = [part.ends + base for part, base in zip(parts, bases, strict=False)]
        return cls(np.concatenate([part.text for part in parts]), np.concatenate(ends))

    def take(self, chosen: np.ndarray) -> "DocumentIds":
        """Return the ids whose numbers are given, in that order."""
        starts = np.concatenate(([0], self.ends))[chosen]
        lengths = self.ends[chosen] - starts
        ends = np.cumsum(lengths)
        where = np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())
        return DocumentIds(self.text[where], ends)

    def hashes(self) -> np.ndarray:
        """(n,) uint64: the FNV-1a hash of each id."""
        return _fnv1a(self.text, self.ends)

    def numbers(self, doc_ids: Sequence[str]) -> np.ndarray:
        """(len(doc_ids),) int64: the number of each id.

        Raises:
            DataError: an id is not there.
        """
        hashes = self.hashes()
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        wanted = DocumentIds.from_strings(doc_ids).hashes()
        firsts, lasts = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
        found = np.empty(len(doc_ids), np.int64)
        for i, (doc_id, first, last) in enumerate(zip(doc_ids, firsts, lasts, strict=True)):
            matches = [number for number in order[first:last] if self[number] == doc_id]
            if not matches:
                raise DataError(f"document '{doc_id}' is not in the index, which holds {len(self)} documents")
            found[i] = matches[0]
        return found

    def known(self, doc_ids: Iterable[str]) -> set[str]:
        """Return those of the given ids that are there."""
        asked = set(doc_ids)
        wanted = np.unique(DocumentIds.from_strings(list(asked)).hashes())
        alike = np.flatnonzero(np.isin(self.hashes(), wanted))
        return asked.intersection(self[i] for i in alike.tolist())

    def check_unique(self) -> None:
        """Refuse an id that occurs twice.

        Raises:
            DataError: naming the id and both positions.
        """
        hashes = self.hashes()
        ordered = np.sort(hashes)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(repeated):
            return
        seen: dict[str, int] = {}
        for i in np.flatnonzero(np.isin(hashes, repeated)).tolist():
            first = seen.setdefault(self[i], i)
            if first != i:
                raise DataError(f"document id '{self[i]}' occurs twice, as documents {first} and {i} (counted from 0)")


def check_unique_across(parts: Sequence[DocumentIds]) -> None:
    """Refuse an id that occurs twice in several parts, holding 8 bytes of each id.

    Raises:
        DataError: naming the id and both positions, counted through all parts.
    """
    hashes = np.sort(np.concatenate([part.hashes() for part in parts]))
    if (hashes[1:] == hashes[:-1]).any():
        DocumentIds.concatenate(parts).check_unique()


@compiled()
def _fnv1a(text: np.ndarray, ends: np.ndarray) -> np.ndarray:
    hashes = np.empty(len(ends), np.uint64)
    start = 0
    for i in range(len(ends)):
        value = np.uint64(0xCBF29CE484222325)
        for position in range(start, ends[i]):
            value = (value ^ np.uint64(text[position])) * np.uint64(0x100000001B3)
        hashes[i] = value
        start = ends[i]
    return hashes
