"""Building an index from a stream of vectors, in bounded memory, by one process or several, resumable at any moment.

Documents are inverted in segments. A segment is written whole or not at all, so a build that was killed resumes after
its last segment. Segments live in `index_dir/.build-<hash of the settings>-<number of processes>`; the index appears at
the end, by renaming, and what it contains depends only on the documents and their order, not on where the build was
interrupted.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from splade.errors import DataError, IndexFileError
from splade.inverted_index.document_ids import DocumentIds
from splade.inverted_index.layout import INDEX_FILE, open_index_file
from splade.inverted_index.merge import IndexInfo, merge
from splade.inverted_index.segments import Segment, SegmentFile
from splade.storage.atomic import read_json, write_json
from splade.storage.locks import FolderLock
from splade.vectors import SparseVectors

_POLL_SECONDS, _SAY_EVERY_SECONDS = 0.2, 60

logger = logging.getLogger(__name__)


class IndexBuilder:
    """Collects documents and writes their index; see `InvertedIndex` for an example.

    It holds the folder's lock (of several processes, the first does, and each other that of its part) until `finish`.

    Attributes:
        documents_done: documents of this rank that an earlier, killed run has stored; give only those after them.
    """

    def __init__(
        self,
        index_dir: str | Path,
        vocab_size: int,
        metadata: Mapping[str, object] | None = None,
        source: str = "",
        rank: int = 0,
        world_size: int = 1,
        overwrite: bool = False,
        segment_postings: int = 1 << 26,
        segment_seconds: float = 120,
    ):
        """Start a build, or resume the unfinished build of the same settings.

        Args:
            index_dir: folder of the index.
            vocab_size: of the model.
            metadata: kept in the index, JSON-able: model fingerprint, tokenizer, maximal length, ...
            source: names what is indexed (path, size, time); only a build of the same source is resumed.
            rank: number of this process, from 0; documents are numbered rank by rank.
            world_size: number of processes.
            overwrite: whether the new index may replace one that is there.
            segment_postings: postings held in memory, 8 bytes each, before they are written to a segment.
            segment_seconds: age at which they are written anyway: so much work is lost when the build is killed.

        Raises:
            BusyError: another process is writing to the folder.
            IndexFileError: the folder holds an index and `overwrite` is False.
            WriteError: the folder cannot be written to, or is none.
        """
        if vocab_size != int(vocab_size) or vocab_size < 1 or segment_postings < 1 or not 0 <= rank < world_size:
            raise DataError(
                "vocab_size and segment_postings are integers of at least 1, and rank is below world_size;"
                f" given {vocab_size}, {segment_postings}, rank {rank} of {world_size}"
            )
        self.index_dir = Path(index_dir)
        self._vocab_size, self._metadata = int(vocab_size), dict(metadata or {})
        self._rank, self._world_size, self._segment_postings = rank, world_size, segment_postings
        self._segment_seconds, self._flushed = segment_seconds, time.monotonic()
        settings = json.dumps([self._vocab_size, self._metadata, source], sort_keys=True, allow_nan=False)
        build = f".build-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
        self._folder = self.index_dir / f"{build}-{world_size}"
        self._lock = FolderLock(self.index_dir, rank)
        if self.path.exists() and not overwrite and not self._folder.exists():
            self._lock.release()
            raise IndexFileError(f"{self.path} exists already; allow it to be overwritten, or choose another index_dir")
        others = [path.name.rpartition("-")[2] for path in self.index_dir.glob(f"{build}-*") if path != self._folder]
        if others and rank == 0:
            logger.warning(
                "an unfinished build of this index by %s processes is left aside: so many could go on with it, not %d",
                " or ".join(sorted(others)),
                world_size,
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._segments = self._complete_segments()
        self.documents_done = sum(len(segment.ids) for segment in self._segments)
        self._ids: list[DocumentIds] = []
        self._batches: list[SparseVectors] = []
        self._buffered = 0
        if self.documents_done:
            logger.info("resuming after the %d documents of an unfinished build", self.documents_done)

    @property
    def path(self) -> Path:
        """The index file."""
        return self.index_dir / INDEX_FILE

    def add(self, doc_ids: Sequence[str], vectors: SparseVectors) -> None:
        """Add documents after those added before.

        The arrays are read when the segment is written: do not change them afterwards.

        Raises:
            DataError: an id or a vector is wrong.
        """
        vectors.check_named(self._vocab_size, doc_ids)
        start = 0
        while start < len(vectors):
            room = vectors.indptr[start] + self._segment_postings - self._buffered
            stop = max(start + 1, int(vectors.indptr.searchsorted(room, "right")) - 1)
            self._ids.append(DocumentIds.from_strings(doc_ids[start:stop]))
            self._batches.append(vectors.rows(start, stop))
            self._buffered += self._batches[-1].nnz
            if self._buffered >= self._segment_postings or stop < len(vectors):
                self._flush()
            start = stop
        if time.monotonic() - self._flushed > self._segment_seconds and self._batches:
            self._flush()

    def cancel(self) -> None:
        """Give up the build that was begun, unless it has documents; the folder can be written to by others again."""
        with self._lock, suppress(FileNotFoundError):  # another process of this build may have removed it
            if not self.documents_done and not any(self._folder.iterdir()):
                self._folder.rmdir()

    def finish(self, timeout_s: float = 24 * 3600) -> IndexInfo:
        """Write the index, once all ranks have called this; every rank returns what was written.

        Raises:
            DataError: no documents, or an id that occurs twice.
            IndexFileError: another rank did not finish in `timeout_s` seconds.
        """
        with self._lock:
            return self._finish(timeout_s)

    def _finish(self, timeout_s: float) -> IndexInfo:
        if self._world_size == 1:
            last = [Segment(self._ids, self._batches, self._vocab_size)] if self._batches else []
            return self._merge([*self._segments, *last])
        if self._batches:
            self._flush()
        if self._rank == 0 or self._folder.exists():  # else the first has seen the mark of an earlier run, and is done
            write_json(self._done(self._rank), len(self._segments))
        if self._rank > 0:
            self._wait([self._folder], there=False, timeout_s=timeout_s)
            return IndexInfo.of(open_index_file(self.path))
        marks = [self._done(rank) for rank in range(self._world_size)]
        self._wait(marks, there=True, timeout_s=timeout_s)
        paths = [self._segment_path(i, rank) for rank, mark in enumerate(marks) for i in range(read_json(mark))]
        return self._merge([SegmentFile(path, self._vocab_size) for path in paths])

    def _merge(self, segments: Sequence[Segment | SegmentFile]) -> IndexInfo:
        info = merge(segments, self.path, self._vocab_size, self._metadata)
        for folder in self.index_dir.glob(".build-*"):
            shutil.rmtree(folder)
        return info

    def _flush(self) -> None:
        """Write the buffered documents as a segment."""
        path = self._segment_path(len(self._segments))
        segment = Segment(self._ids, self._batches, self._vocab_size)
        segment.ids.check_unique()
        segment.write(path)
        self._segments.append(SegmentFile(path, self._vocab_size))
        self._ids, self._batches, self._buffered = [], [], 0
        self._flushed = time.monotonic()

    def _complete_segments(self) -> list[SegmentFile]:
        """Open this rank's segments of an earlier run, up to the first that is missing or damaged."""
        self._done(self._rank).unlink(missing_ok=True)
        segments: list[SegmentFile] = []
        while (path := self._segment_path(len(segments))).exists():
            try:
                segments.append(SegmentFile(path, self._vocab_size))
            except IndexFileError as error:
                logger.warning("building again from a damaged segment on: %s", error)
                break
        for path in self._folder.glob(f"r{self._rank:05d}-s*.h5"):
            if path not in [self._segment_path(i) for i in range(len(segments))]:
                path.unlink()
        return segments

    def _segment_path(self, number: int, rank: int | None = None) -> Path:
        return self._folder / f"r{self._rank if rank is None else rank:05d}-s{number:06d}.h5"

    def _done(self, rank: int) -> Path:
        return self._folder / f"r{rank:05d}.done"

    def _wait(self, paths: Sequence[Path], there: bool, timeout_s: float) -> None:
        begin = said = time.monotonic()
        while any(path.exists() != there for path in paths):
            now = time.monotonic()
            if now - said > _SAY_EVERY_SECONDS:
                said = now
                logger.warning(
                    "%s: has waited for the other processes of this build for %.0f s", self.path, now - begin
                )
            if now > begin + timeout_s:
                raise IndexFileError(
                    f"waited {timeout_s:.0f} s for the other processes of this build; see their output"
                )
            time.sleep(_POLL_SECONDS)
