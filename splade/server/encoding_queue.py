"""Queries that arrive at the same time are encoded together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from splade.vectors import SparseVectors

Encode = Callable[[list[str]], SparseVectors]


class EncodingQueue:
    """Collects texts while a batch is encoded; what has come by then is the next batch. Nobody waits for company.

    Args:
        encode: encodes a list of texts.
        executor: where it runs.
        most: most texts of a batch.

    Attributes:
        n_batches: batches encoded so far.
        n_texts: texts encoded so far.
    """

    def __init__(self, encode: Encode, executor: Executor, most: int = 64):
        self._encode = encode
        self._executor = executor
        self._most = most
        self._waiting: list[tuple[str, asyncio.Future[SparseVectors]]] = []
        self._worker: asyncio.Task[None] | None = None
        self.n_batches = self.n_texts = 0

    async def vector(self, text: str) -> SparseVectors:
        """Return the vector of one text; what encoding raises is raised here."""
        future: asyncio.Future[SparseVectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._encode_batch(batch)
        finally:
            self._worker = None

    async def _encode_batch(self, batch: list[tuple[str, "asyncio.Future[SparseVectors]"]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(self._executor, self._encode, [text for text, _ in batch])
        except Exception as error:  # whatever it is, those who wait must hear of it
            if len(batch) > 1:  # one text of several may be at fault: only its sender shall hear of it
                for one in batch:
                    await self._encode_batch([one])
                return
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        self.n_batches += 1
        self.n_texts += len(batch)
        for i, (_, future) in enumerate(batch):
            if not future.done():  # whoever asked may have gone
                future.set_result(vectors.rows(i, i + 1))
