"""Several arrays in one file that opens by memory-mapping, and where such derived files are cached.

Layout: one line of JSON (what the file is, dtype, shape and place of every array), then the arrays' raw bytes, each
at a multiple of 64. Opening reads the line only, so it costs the same for a kilobyte and for ten gigabytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from splade.storage.atomic import replacing

CACHE_FROM_BYTES = 1 << 20
"""Sources below this size are read anew each time: faster than looking for a cache, and no files are left behind."""

_FORMAT = "splade arrays 1"
_ALIGNMENT = 64
_HEADER_LIMIT = 1 << 16

Arrays = dict[str, np.ndarray]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write one-dimensional arrays and a JSON-able description, whole or not at all."""
    places, position = {}, 0
    for name, array in arrays.items():
        places[name] = {"dtype": array.dtype.str, "length": len(array), "start": position}
        position += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({"format": _FORMAT, "about": dict(about), "bytes": position, "arrays": places}).encode()
    header += b" " * (-(len(header) + 1) % _ALIGNMENT) + b"\n"
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        stream.write(header)
        for array in arrays.values():
            stream.write(np.ascontiguousarray(array).data)
            stream.write(bytes(-array.nbytes % _ALIGNMENT))


def open_arrays(path: Path, about: Mapping[str, Any]) -> Arrays | None:
    """Memory-map the arrays of a file; None when there is none, or one of another description, or a cut one."""
    try:
        with open(path, "rb") as stream:
            line = stream.readline(_HEADER_LIMIT)
            size = os.fstat(stream.fileno()).st_size
    except OSError:
        return None
    try:
        header = json.loads(line)
    except ValueError:
        return None
    if not isinstance(header, dict) or header.get("format") != _FORMAT or header["about"] != dict(about):
        return None
    if size != len(line) + header["bytes"]:
        return None
    return {name: _map(path, len(line), place) for name, place in header["arrays"].items()}


def _map(path: Path, base: int, place: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(place["dtype"])
    if place["length"] == 0:
        return np.zeros(0, dtype)
    # A plain ndarray over the mapping: subscripting a np.memmap costs several times more.
    return np.asarray(np.memmap(path, dtype, "r", base + place["start"], (place["length"],)))


def fingerprint(source: Path) -> dict[str, Any]:
    """Describe the state of a source file; what was derived from it is stale once this changes."""
    state = source.stat()
    return {"name": source.name, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def cache_candidates(source: Path, suffix: str) -> list[Path]:
    """Return where something derived from `source` may lie: beside it, then in the user's cache folder."""
    absolute = source.absolute()
    digest = hashlib.blake2b(str(absolute).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return [absolute.with_name(absolute.name + suffix), user_cache() / f"{digest}-{absolute.name}{suffix}"]


def cache_target(source: Path, suffix: str) -> Path:
    """Return where to write something derived from `source`: beside it when that folder can be written to."""
    beside, in_cache = cache_candidates(source, suffix)
    return beside if os.access(beside.parent, os.W_OK) else in_cache


def user_cache() -> Path:
    """Return `$XDG_CACHE_HOME/splade` or `~/.cache/splade`."""
    configured = os.environ.get("XDG_CACHE_HOME")
    return (Path(configured) if configured else Path.home() / ".cache") / "splade"
