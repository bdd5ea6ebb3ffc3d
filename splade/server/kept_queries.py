"""Vectors of the queries that were asked lately: asked again, also with other weights, one is not encoded again."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

from splade.vectors import SparseVectors


class KeptQueries:
    """Encodes queries, and keeps the vectors of the last ones. Safe to use from several threads.

    Args:
        encode: turns texts into their vectors.
        most: vectors that are kept; 0: none.

    Attributes:
        n_found: queries that needed no encoding.
    """

    def __init__(self, encode: Callable[[list[str]], SparseVectors], most: int):
        self._encode = encode
        self._most = most
        self._kept: OrderedDict[str, SparseVectors] = OrderedDict()
        self._changing = Lock()
        self.n_found = 0

    def vectors(self, texts: Sequence[str]) -> list[SparseVectors]:
        """Return one vector for each text, in their order; those that are not known are encoded together."""
        with self._changing:
            found = {text: self._kept[text] for text in texts if text in self._kept}
            self.n_found += sum(text in found for text in texts)
        missing = list(dict.fromkeys(text for text in texts if text not in found))
        if missing:
            encoded = self._encode(missing)
            found |= {text: encoded.rows(i, i + 1) for i, text in enumerate(missing)}
        with self._changing:
            for text in texts if self._most else ():
                self._kept[text] = found[text]
                self._kept.move_to_end(text)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return [found[text] for text in texts]
