"""Files from the network: fetched whole or not at all, taken up again where a transfer broke, and checked.

Libraries take a transfer up again within one process (`ir_datasets`), or not at all; files of many gigabytes need it
after a restart, too, and must notice that the server has another file by then.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from splade.errors import DataError
from splade.storage.atomic import read_json, write_json
from splade.storage.download import HEADERS, TIMEOUT_SECONDS, receive

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5


@dataclass(frozen=True)
class Source:
    """A file to fetch: where from, and its MD5 if that is publicly known."""

    url: str
    md5: str | None = None

    @property
    def file(self) -> str:
        """Name of the file in the folder `downloads`."""
        return self.url.rpartition("/")[2].partition("?")[0]

    def address(self, base_url: str | None) -> str:
        """Return where to fetch it from: its own place, or the same name below `base_url`."""
        return self.url if base_url is None else f"{base_url.rstrip('/')}/{self.file}"


class Downloads:
    """The folder of fetched files.

    Args:
        folder: where they are kept.
        sources: what can be fetched.
        base_url: fetch everything from this folder of a server instead.
        wait_seconds: pause before a broken transfer is taken up again; doubled each time.
    """

    def __init__(
        self, folder: Path, sources: Mapping[str, Source], base_url: str | None = None, wait_seconds: float = 2.0
    ):
        self.folder = folder
        self.sources = sources
        self.base_url = base_url
        self.wait_seconds = wait_seconds
        self._recorded = folder / "checksums.json"

    def get(self, name: str) -> Path:
        """Return a source's file, fetched if it is not there yet, and checked.

        Raises:
            DataError: it cannot be fetched, or its checksum is wrong.
        """
        source = self.sources[name]
        path = self.folder / source.file
        if path.is_file():
            self._check(source, path)
            return path
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        self._fetch(source.address(self.base_url), part, source.md5 is not None)
        try:
            self._check(source, part)
        except DataError:
            part.unlink(missing_ok=True)
            _tag_file(part).unlink(missing_ok=True)
            raise
        part.rename(path)
        _tag_file(part).unlink(missing_ok=True)
        return path

    def _check(self, source: Source, path: Path) -> None:
        """Compare with the known MD5, else with the recorded SHA-256; record that if there is none."""
        if source.md5 is not None:
            found, expected = digest(path, "md5"), source.md5
        else:
            recorded = read_json(self._recorded) if self._recorded.is_file() else {}
            if not isinstance(recorded, dict):
                raise DataError(f"{self._recorded}: not a list of checksums; delete it, and the files beside it")
            found = digest(path, "sha256")
            expected = recorded.setdefault(source.file, found)
            write_json(self._recorded, recorded)
        if found != expected:
            raise DataError(
                f"{path}: its checksum is {found}, expected {expected}. It is damaged, or the server now has another "
                f"file. Delete it and run the command again (from {source.address(self.base_url)})."
            )

    def _fetch(self, url: str, part: Path, known: bool) -> None:
        """Append to `part` until it has everything; a broken transfer is taken up again where it stopped."""
        failures = 0
        while True:
            before = size_of(part)
            try:
                transfer(url, part, known)
                return
            except requests.RequestException as error:
                failures = 1 if size_of(part) > before else failures + 1
                if failures == ATTEMPTS or not _worth_another_try(error):
                    raise DataError(
                        f"{url}: the download failed ({error}); {size_of(part)} bytes are in {part}. Check the "
                        "connection and run the same command again: it goes on from there."
                    ) from error
                logger.warning("%s: %s; trying again", url, error)
                time.sleep(self.wait_seconds * 2 ** (failures - 1))


def transfer(url: str, part: Path, known: bool) -> None:
    """Fetch the rest of a file into `part`.

    The server's tag of the file is kept beside it: if the file has changed since, it is fetched from the beginning.

    Args:
        url: where it lies.
        part: what there is of it.
        known: its checksum is: a beginning without a tag will do, what does not belong together will be found.

    Raises:
        requests.RequestException: the connection, the server or the transfer failed.
        DataError: there is not enough space on the disk.
    """
    tag_file = _tag_file(part)
    tag = _tag(tag_file)
    done = size_of(part) if tag or known else 0
    headers = HEADERS | {"X-Ms-Version": "2019-12-12"}  # the latter lets Azure answer ranges
    if done:
        headers |= {"Range": f"bytes={done}-"} | ({"If-Range": tag} if tag else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range", "").rpartition("/")[2] != str(done):
                part.unlink(missing_ok=True)  # it cannot be a beginning of that file
                raise requests.ConnectionError(f"the server has no byte {done}; starting over")
            return
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial_content
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server sent another part than was asked for; starting over")
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if tag and not tag.startswith("W/"):  # a weak tag does not vouch for the bytes
            tag_file.write_text(tag)
        else:
            tag_file.unlink(missing_ok=True)
        receive(answer, part, goes_on)


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _tag(file: Path) -> str | None:
    try:
        tag = file.read_text()
    except (OSError, ValueError):
        return None
    return tag if tag.isascii() and tag.isprintable() and tag.strip() else None


def _worth_another_try(error: requests.RequestException) -> bool:
    status = error.response.status_code if error.response is not None else None
    return status is None or status >= 500 or status == requests.codes.too_many_requests


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def digest(path: Path, kind: str) -> str:
    """Return the checksum of a file as hexadecimal digits."""
    value = hashlib.new(kind)
    with open(path, "rb") as file:
        while piece := file.read(CHUNK_BYTES):
            value.update(piece)
    return value.hexdigest()
