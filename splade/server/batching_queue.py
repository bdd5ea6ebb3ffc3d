"""Requests that arrive at the same time are worked on together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


class BatchingQueue(Generic[Item, Found]):
    """Collects items while a batch is worked on; what has come by then is the next batch. Nobody waits for company.

    Args:
        work: turns a list of items into a list of results; an exception among them is raised to whoever asked.
        executor: where it runs.
        most: most items of a batch.
        at_once: batches that are worked on at the same time.

    Attributes:
        n_batches: batches done so far.
        n_items: items done so far.
    """

    def __init__(
        self, work: Callable[[list[Item]], Sequence[Found | Exception]], executor: Executor, most: int, at_once: int = 1
    ):
        self._work = work
        self._executor = executor
        self._most = most
        self._at_once = at_once
        self._waiting: list[tuple[Item, asyncio.Future[Found]]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self.n_batches = self.n_items = 0

    async def result(self, item: Item) -> Found:
        """Return the result of one item; what went wrong with it is raised here."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._workers) < self._at_once:
            worker = asyncio.create_task(self._work_off())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await future

    async def _work_off(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            await self._do(batch)

    async def _do(self, batch: list[tuple[Item, "asyncio.Future[Found]"]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._work, [item for item, _ in batch])
        except Exception as error:  # whatever it is, those who wait must hear of it
            if len(batch) > 1:  # one item of several may be at fault: only its sender shall hear of it
                for one in batch:
                    await self._do([one])
                return
            results = [error]
        self.n_batches += 1
        self.n_items += len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # whoever asked may have gone
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
