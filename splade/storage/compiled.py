"""Compiling loops with Numba: the machine code is kept on disk where there is a place for it."""

import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from typing import Literal, TypeVar, cast

import numba
from numba.core import event

from splade.progress import ProgressBar, progress_bar

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., object])


class Announcement(event.Listener):
    """Shows why nothing else happens: compiling takes some ten seconds, when nothing is kept on disk yet.

    A line of the log when it begins, and the progress of each loop together with what it calls.
    """

    def __init__(self) -> None:
        self._told = False
        self._threads = threading.local()

    def on_start(self, event: event.Event) -> None:
        """Begin to compile a function, which may be called by one that is being compiled."""
        if not self._told:
            self._told = True
            logger.info("compiling loops for this machine, once: this takes a while")
        bars = self._bars()
        if not bars:
            name = getattr(getattr(event.data.get("dispatcher"), "py_func", None), "__name__", "a loop")
            bars.append(progress_bar(f"compiling {name}", unit="function"))
        else:
            bars.append(bars[0])

    def on_end(self, event: event.Event) -> None:
        """Count it; the outermost function ends the bar."""
        bars = self._bars()
        if bars:
            bar = bars.pop()
            bar.update()
            if not bars:
                bar.close()

    def _bars(self) -> list[ProgressBar]:
        """Return the bar of this thread, as often as there are functions within one another."""
        if not hasattr(self._threads, "bars"):
            self._threads.bars = []
        bars: list[ProgressBar] = self._threads.bars
        return bars


event.register("numba:compile", Announcement())


def compiled(inline: Literal["never", "always"] = "never") -> Callable[[Function], Function]:
    """Compile a function for the types that it is called with, free of Python's lock.

    Numba keeps what it has compiled beside the source, or in the user's cache folder. Where it can write to neither
    (a read-only installation, no home), a folder in the temporary one is taken, or else nothing is kept. A place that
    the user has chosen with NUMBA_CACHE_DIR is never replaced by another.

    Args:
        inline: "always": its code becomes part of the callers'.
    """

    def decorate(function: Function) -> Function:
        for _ in range(2):
            try:
                return cast(Function, numba.njit(function, nogil=True, cache=True, inline=inline))
            except RuntimeError:  # no place that can be written to
                numba.config.CACHE_DIR = numba.config.CACHE_DIR or _private_folder()  # type: ignore[attr-defined]
        return cast(Function, numba.njit(function, nogil=True, inline=inline))

    return decorate


def _private_folder() -> str:
    """Return a folder for temporary files in which nobody else can put anything; an empty string when there is none.

    What lies in it is run, so one that somebody else has made is not used.
    """
    try:
        if not hasattr(os, "getuid"):
            return tempfile.mkdtemp(prefix="splade-compiled-")
        folder = os.path.join(tempfile.gettempdir(), f"splade-compiled-{os.getuid()}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        state = os.lstat(folder)
        private = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o022
        return folder if private else tempfile.mkdtemp(prefix="splade-compiled-")
    except OSError:
        return ""
