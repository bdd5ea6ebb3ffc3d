"""Receiving files from servers that may stall, lie or never end."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from splade.errors import DataError
from splade.progress import progress_bar

if TYPE_CHECKING:
    import requests

TIMEOUT_SECONDS = 30
"""For a connection, and for each piece of a transfer."""

HEADERS = {"Accept-Encoding": "identity"}

_PIECE = 1 << 20
_STALL_SECONDS, _STALL_BYTES = 60, 1 << 16
_LARGEST = 200 * 10**9  # the largest published collection is a tenth of it


def receive(answer: "requests.Response", target: Path, goes_on: bool = False) -> None:
    """Write the body of an answer to a file.

    Args:
        answer: of a request with `stream=True` and `HEADERS`.
        target: the file.
        goes_on: the body is appended.

    Raises:
        requests.RequestException: the transfer broke off, or is slower than 1 KiB/s for a minute.
        DataError: a web page instead of a file, more than the disk or any data set holds, or an unknown encoding.
    """
    import requests
    import urllib3

    kind, encoding = (answer.headers.get(name, "") for name in ("Content-Type", "Content-Encoding"))
    if kind.startswith("text/html") or encoding not in ("", "identity"):
        raise DataError(f"{answer.url}: the answer is not the file but '{kind} {encoding}', an error page or a log-in")
    done = target.stat().st_size if goes_on else 0
    length = answer.headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() and len(length) < 20 else None
    _check_space(target, (total or done) - done)
    begin, arrived = time.monotonic(), 0
    with open(target, "ab" if goes_on else "wb") as file, progress_bar(target.name, total, "B", done) as bar:
        while True:
            try:
                piece = answer.raw.read1(_PIECE, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise requests.ConnectionError(f"the transfer broke off ({error})") from error
            if not piece:
                break
            if file.tell() + len(piece) > _LARGEST:
                raise DataError(f"{answer.url}: sends more than {_LARGEST / 1e9:.0f} GB; no data set is as large")
            file.write(piece)
            bar.update(len(piece))
            arrived += len(piece)
            if (now := time.monotonic()) - begin > _STALL_SECONDS:
                if arrived < _STALL_BYTES:
                    raise requests.Timeout(f"only {arrived} bytes arrived in {_STALL_SECONDS} s")
                begin, arrived = now, 0
                _check_space(target, 0)
    size = target.stat().st_size
    if total is not None and size != total:
        raise requests.ConnectionError(f"{size} of {total} bytes arrived")


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free or free < _PIECE:
        raise DataError(
            f"{target.parent.absolute()}: {needed / 1e9:.1f} GB are to be fetched, but only {free / 1e9:.1f} GB are "
            "free; make room, or choose another disk"
        )
