"""One writer of a folder at a time, by a lock that the kernel releases when its process ends, however it ends.

Readers take no lock: whatever they read is replaced whole. The lock is `fcntl.flock` on a file `.writer` in the
folder, which says who holds it and is removed at the end. A process that was killed leaves the file and no lock. Where
the file system (or the operating system) has no such locks, the file itself is the lock: one that a killed process of
this machine has left is taken over, one of another machine must be removed by hand, and the message says so.
"""

import errno
import json
import logging
import os
import platform
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from splade.errors import BusyError
from splade.storage.atomic import process_is_gone, writing

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".writer"
_POLL_SECONDS = 0.05
_BUSY = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

logger = logging.getLogger(__name__)


@dataclass
class _Hold:
    descriptor: int
    times: int


_holds: dict[tuple[Path, int], _Hold] = {}  # by lock file and thread


class FolderLock:
    """The right to write to a folder, until `release`, the end of a `with` block, or the end of the process.

    A thread that holds it may take it again. Making one makes the folder, too.

    Args:
        folder: what is locked.
        part: number of a part of the folder that has a writer of its own; 0 stands for all else.
        wait_s: seconds to wait for somebody else, where what is written takes a moment only.

    Raises:
        BusyError: somebody else holds it; the message says who.
        WriteError: the folder cannot be written to, or is none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with FolderLock(folder):
        ...     sorted(path.name for path in folder.iterdir())
        ['.writer']
        >>> list(folder.iterdir())
        []
    """

    def __init__(self, folder: str | Path, part: int = 0, wait_s: float = 0):
        self._held = False
        path = Path(folder).resolve() / (f"{LOCK_FILE}-{part}" if part else LOCK_FILE)
        self._key = path, threading.get_ident()
        if self._key not in _holds:
            with writing(path, shown=Path(folder)):
                path.parent.mkdir(parents=True, exist_ok=True)
                _holds[self._key] = _Hold(_wait_for(path, wait_s), 0)
        _holds[self._key].times += 1
        self._held = True

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back; a second time, nothing happens."""
        hold = _holds.get(self._key) if self._held else None
        self._held = False
        if hold is None:
            return
        hold.times -= 1
        if hold.times == 0:
            del _holds[self._key]
            with suppress(OSError):  # the folder may be gone
                self._key[0].unlink()
            os.close(hold.descriptor)


def _wait_for(path: Path, wait_s: float) -> int:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return _take(path)
        except BusyError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _take(path: Path) -> int:
    """Return the descriptor of a lock file that is locked and lies at `path`."""
    while True:
        try:
            descriptor, created = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                descriptor, created = os.open(path, os.O_RDWR), False
            except FileNotFoundError:
                continue
        try:
            if _lock(path, descriptor, created) and os.path.samestat(os.stat(path), os.fstat(descriptor)):
                os.ftruncate(descriptor, 0)
                with suppress(OSError):  # a full disk
                    os.pwrite(descriptor, _about_this_process(), 0)
                return descriptor
        except FileNotFoundError:
            pass  # whoever held the lock has removed the file
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(path: Path, descriptor: int, created: bool) -> bool:
    """Lock an opened file; return False to try again."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _BUSY:
                raise BusyError(
                    f"{path.parent}: {_holder(descriptor)[0]}; wait until it has ended, stop it, or give another folder"
                ) from error
            if error.errno not in _NO_LOCKS:
                raise
    logger.warning("%s: no locks on this file system: the file %s stands for one", path.parent, path.name)
    if created:
        return True
    described, gone = _holder(descriptor)
    if not gone:
        raise BusyError(f"{path.parent}: {described}; if that process has ended, remove {path}")
    path.unlink(missing_ok=True)
    return False


def _about_this_process() -> bytes:
    about = {
        "host": platform.node(),
        "process": os.getpid(),
        "command": " ".join(sys.orig_argv)[:500],
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    }
    return json.dumps(about).encode()


def _holder(descriptor: int) -> tuple[str, bool]:
    """Return who holds a lock, for a message, and whether that process is gone."""
    try:
        about = json.loads(os.pread(descriptor, 1 << 16, 0))
        host, process_id, command, since = (about[key] for key in ("host", "process", "command", "since"))
        described = f"process {process_id} on {host} has been writing to it since {since} ({command})"
        return described, process_is_gone(str(host), int(process_id))
    except (ValueError, KeyError, TypeError):  # it has the lock and has not yet written this
        return "another process has just begun to write to it", False


def _forget() -> None:
    """In a forked child: the parent has the locks, which must not outlive it in the child."""
    for hold in _holds.values():
        os.close(hold.descriptor)
    _holds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
