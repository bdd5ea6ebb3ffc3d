"""What was derived from a file of the user: where it may lie, and whether it is still valid."""

import hashlib
import json
import os
from pathlib import Path

from splade.errors import IndexFileError
from splade.storage.arrays import Arrays, Layout, array_writer, open_arrays

CACHE_FROM_BYTES = 1 << 20
"""Sources below this size are read anew each time: faster than looking for a cache, and no files are left behind."""

_STATE = "derived_from"


def source_state(source: Path) -> dict[str, str | int]:
    """Describe the state of a source file; what was derived from it is stale once this changes."""
    state = source.stat()
    return {"name": source.name, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


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
