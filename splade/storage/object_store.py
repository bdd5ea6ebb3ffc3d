"""Files of an object store, `s3://bucket/path` and the like: copied once into the cache, and used from there."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path, PurePosixPath

from splade.errors import DataError
from splade.progress import progress
from splade.storage.atomic import replacing, write_text
from splade.storage.cache import user_cache

_SCHEME = re.compile(r"(s3|gs|gcs|hdfs|viewfs|abfs|abfss|file)://", re.IGNORECASE)
_COPIED_AT_ONCE = 1 << 22


def is_object_uri(path: str) -> bool:
    """Return whether a path names something in an object store."""
    return _SCHEME.match(path) is not None


def local_copy(uri: str) -> Path:
    """Return the copy of a file, or of a folder with all files in it, in this machine's cache.

    What has changed there, in size or time of modification, is copied again; each file is whole or not there.

    Raises:
        DataError: nothing is there, it cannot be reached, or pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow import fs as arrow_fs
    except ImportError as error:
        raise DataError(f"{uri}: object stores need pyarrow: pip install 'splade[parquet]'") from error
    try:
        store, place = arrow_fs.FileSystem.from_uri(uri)
        found = store.get_file_info(place)
        if found.type == arrow_fs.FileType.NotFound:
            raise DataError(f"{uri}: nothing is there")
        is_folder = found.type == arrow_fs.FileType.Directory
        inside = store.get_file_info(arrow_fs.FileSelector(place, recursive=True)) if is_folder else [found]
        files = {one.path: [one.size, one.mtime_ns] for one in inside if one.type == arrow_fs.FileType.File}
        folder = user_cache() / "objects" / sha256(uri.encode()).hexdigest()[:16]
        target = folder / (PurePosixPath(place).name or "store")
        noted = folder / "copied.json"
        before = json.loads(noted.read_text()) if noted.is_file() else {}
        for path in progress(sorted(files), f"copying {uri}", unit="file"):
            copy = target / PurePosixPath(path).relative_to(place) if is_folder else target
            if before.get(path) != files[path] or not copy.is_file():
                with store.open_input_stream(path) as source, replacing(copy) as temporary:
                    with open(temporary, "wb") as written:
                        shutil.copyfileobj(source, written, _COPIED_AT_ONCE)
        for path in before.keys() - files.keys():
            (target / PurePosixPath(path).relative_to(place)).unlink(missing_ok=True)
        write_text(noted, json.dumps(files))
        return target
    except (ArrowException, OSError) as error:
        raise DataError(f"{uri}: cannot be read ({' '.join(str(error).split())[:200]})") from error
