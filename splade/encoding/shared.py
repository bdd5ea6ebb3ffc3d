"""The vectors of a collection, encoded by all processes and handed out in order by the first one."""

from collections.abc import Iterator
from itertools import chain

from splade.datasets.text_collection import TextCollection
from splade.distributed import first_process_first, gather, n_processes, process_rank
from splade.encoding.batching import WINDOW
from splade.encoding.text_encoder import TextEncoder
from splade.vectors import SparseVectors


def encode_shared(
    encoder: TextEncoder, texts: TextCollection, window: int = WINDOW
) -> Iterator[tuple[list[str], SparseVectors]]:
    """Yield ids and vectors of the next texts, in their order, in the first process; nothing in the others.

    All processes must call this and go through to the end. Each encodes every n-th `window` of texts, so that the
    vectors are those of one process to the last bit.

    Example:
        >>> import splade
        >>> from splade.datasets.text_collection import PairCollection
        >>> model = splade.load("pkg://cognition/model")
        >>> texts = PairCollection([("d1", "A cat sat."), ("d2", "Dogs bark.")])
        >>> [ids for ids, vectors in encode_shared(model.documents, texts)]
        [['d1', 'd2']]
    """
    if n_processes() == 1:
        yield from encoder.encode_pairs(texts)
        return
    length = first_process_first(lambda: len(texts))
    starts = range(0, length, window)
    own = starts[process_rank() :: n_processes()]
    pairs = chain.from_iterable(texts.between(start, min(start + window, length)) for start in own)
    groups = encoder.encode_pairs(pairs)
    for _ in range(-(-len(starts) // n_processes())):
        round_of_all = gather(next(groups, None))
        if process_rank() == 0:
            yield from (group for group in round_of_all if group is not None)
