"""What was derived from a file of the user: where it may lie, and whether it is still valid.

Size and time of modification do not tell whether a file has changed: both can be set to anything. The bytes do. Reading
them takes half a second per GB, too long for each opening of a large file, so its digest is remembered together with
size, inode, and times of last modification and change. No program can set the time of change, so whatever touches the
file afterwards causes it to be read again.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from splade.errors import DataError, IndexFileError, SpladeError
from splade.progress import progress
from splade.storage.arrays import Arrays, Layout, array_writer, open_arrays, stamp
from splade.storage.atomic import write_text

CACHE_FROM_BYTES = 1 << 20
"""Sources below this size are read anew each time: faster than looking for a cache, and no files are left behind."""

REMEMBER_FROM_BYTES = 1 << 24
"""The digests of smaller files are not kept: computing one takes 10 ms."""

DIGEST_SUFFIX = ".splade-digest"
_STATE = "derived_from"
_READ_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000  # clocks of file systems can be as coarse as this
_LONGEST_NAME = (
    120  # bytes; with suffix, host, process id and the like a name stays below the 255 that file systems allow
)

logger = logging.getLogger(__name__)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, its first 32 hexadecimal digits.

    Raises:
        DataError: the file changes while it is read.
    """
    path = path.absolute()
    status = path.stat()
    memo = user_cache() / _name_in_cache(path, DIGEST_SUFFIX)
    if status.st_size >= REMEMBER_FROM_BYTES and (remembered := _recall(memo, stamp(status))):
        return remembered
    digest = _read_digest(path, status.st_size)
    if stamp(path.stat()) != stamp(status):
        raise changed_while_read(path)
    # A file that has just been written could change once more within the same tick of the clock.
    if status.st_size >= REMEMBER_FROM_BYTES and time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
        try:
            write_text(memo, _memo(stamp(status), digest))
        except (OSError, SpladeError) as error:
            logger.debug("%s: its digest cannot be remembered (%s)", path, error)
    return digest


def _read_digest(path: Path, size: int) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        blocks: Iterable[bytes] = iter(lambda: file.read(_READ_BYTES), b"")
        if size >= REMEMBER_FROM_BYTES:
            blocks = progress(blocks, f"checking {path.name}", -(-size // _READ_BYTES), "MiB")
        for block in blocks:
            sha256.update(block)
    return sha256.hexdigest()[:32]


def changed_while_read(path: Path) -> DataError:
    """Return the error for a file that is being written."""
    return DataError(f"{path}: changed while it was read; start again once it is complete")


def _memo(stamped: str, digest: str) -> str:
    return f"{stamped}{digest} {hashlib.sha256((stamped + digest).encode()).hexdigest()[:16]}\n"


def _recall(memo: Path, stamped: str) -> str | None:
    try:
        text = memo.read_text()
        digest = text[len(stamped) :].partition(" ")[0]
        return digest if text == _memo(stamped, digest) else None
    except (OSError, ValueError):
        return None


def source_state(source: Path) -> dict[str, str]:
    """Describe the content of a source file; what was derived from it is stale once this changes."""
    return {"name": source.name, "digest": file_digest(source)}


def write_cache(path: Path, layout: Layout, arrays: Arrays, state: object) -> None:
    """Write arrays and the JSON-able state of what they were derived from, whole or not at all."""
    with array_writer(path, layout, {_STATE: json.dumps(state)}) as file:
        for name, array in arrays.items():
            file.write(name, array)


def open_cache(path: Path, layout: Layout, state: object) -> Arrays | None:
    """Memory-map cached arrays; None when there are none, or damaged ones, or those of another state."""
    try:
        file = open_arrays(path, layout)
        return file.arrays if file.text(_STATE) == json.dumps(state) else None
    except IndexFileError:
        return None


def cache_candidates(source: Path, suffix: str) -> list[Path]:
    """Return where something derived from `source` may lie: beside it, then in the user's cache folder."""
    absolute = source.absolute()
    in_cache = user_cache() / _name_in_cache(absolute, suffix)
    if len(os.fsencode(absolute.name)) > _LONGEST_NAME:
        return [in_cache, in_cache]
    return [absolute.with_name(absolute.name + suffix), in_cache]


def cache_target(source: Path, suffix: str) -> Path:
    """Return where to write something derived from `source`: beside it when that folder can be written to."""
    beside, in_cache = cache_candidates(source, suffix)
    return beside if os.access(beside.parent, os.W_OK) else in_cache


def _name_in_cache(absolute: Path, suffix: str) -> str:
    digest = hashlib.blake2b(os.fsencode(absolute), digest_size=8).hexdigest()
    name = os.fsencode(absolute.name)[-_LONGEST_NAME:].decode("utf-8", "ignore")
    return f"{digest}-{name}{suffix}"


def user_cache() -> Path:
    """Return `$XDG_CACHE_HOME/splade` or `~/.cache/splade`; without a home, a place where nothing can be written."""
    configured, home = os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~")
    return Path(configured or (os.devnull if home == "~" else f"{home}/.cache")) / "splade"
