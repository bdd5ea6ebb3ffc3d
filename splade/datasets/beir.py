"""BEIR data sets: the folder layout, and fetching one that is missing."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from splade.datasets.dataset import Dataset
from splade.errors import DataError
from splade.storage.paths import check_folder_name, folder_content, resolve_path

URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{name}.zip"
CQADUPSTACK_FORUMS = tuple(
    "android english gaming gis mathematica physics programmers stats tex unix webmasters wordpress".split()
)
"""Sub-forums of CQADupStack, folders of `cqadupstack/`; the published figure is the mean of their figures."""

CQADUPSTACK = "cqadupstack"
_TIMEOUT_SECONDS = 30


def open_beir(name: str, folder: str | Path, split: str = "test", url: str | None = None) -> list[Dataset]:
    """Open a data set by its name, fetching it first when it is not there.

    Args:
        name: `scifact`, `cqadupstack/android`, ...; `cqadupstack` stands for its twelve sub-forums.
        folder: holds the data sets, each in a folder of its name.
        split: name of the judgements.
        url: where the zip lies, with `{name}` in it; None: BEIR's own server.

    Returns:
        One data set, or twelve. Their queries are those that are judged in the split.

    Raises:
        DataError: it is not there and cannot be downloaded, or something is missing in it.
        ConfigError: the name would lead out of the folder.
    """
    name = name.rstrip("/")
    for part in name.split("/", 1):
        check_folder_name(part, "beir.dataset")
    found = find_or_download(name, folder, url or URL)
    if name != CQADUPSTACK:
        return [beir_dataset(found, split, name)]
    missing = [forum for forum in CQADUPSTACK_FORUMS if not (found / forum).is_dir()]
    if missing:
        raise DataError(
            f"{found.absolute()}: the sub-forums {', '.join(missing)} are missing, so there is no average; evaluate "
            "one with beir.dataset=cqadupstack/FORUM"
        )
    return [beir_dataset(found / forum, split, f"{CQADUPSTACK}/{forum}") for forum in CQADUPSTACK_FORUMS]


def beir_dataset(folder: Path, split: str = "test", name: str | None = None) -> Dataset:
    """Open one split of a BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`.

    Raises:
        DataError: names what is missing and the splits that exist; or a judged query has no text.
    """
    splits = available_splits(folder)
    if split not in splits:
        there = ", ".join(splits) or "none"
        raise DataError(f"{folder.absolute()}: there are no judgements of the split '{split}'; splits: {there}")
    dataset = Dataset.open(name or folder.name, folder, folder, folder, split)
    judged = dataset.judged_queries
    for query_id in dataset.qrels or {}:
        if query_id not in judged:
            raise DataError(f"{folder}: query '{query_id}' is judged in the split '{split}' but has no text")
    return replace(dataset, queries=judged)


def available_splits(folder: Path) -> list[str]:
    """Return the names of the splits that have judgements, sorted."""
    qrels = folder / "qrels"
    names = (file.name for file in qrels.iterdir()) if qrels.is_dir() else iter(())
    return sorted(set(_split_names(names)))


def find_or_download(name: str, folder: str | Path, url: str = URL) -> Path:
    """Return `folder/name`, as it is or fetched; the arguments are those of `open_beir`.

    Raises:
        DataError: the download fails, or what arrives is not the data set. Nothing is left behind then.
    """
    place = resolve_path(folder) if str(folder).startswith("pkg://") else Path(folder).expanduser()
    wanted = place / name
    if wanted.is_dir():
        return wanted
    archive_name = name.split("/")[0]
    if (place / archive_name).is_dir():
        raise DataError(
            f"{wanted.absolute()}: no such folder; {place / archive_name} {folder_content(place / archive_name)}"
        )
    place.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{archive_name}.", dir=place) as scratch:
        fetched = _fetch(url.replace("{name}", archive_name), Path(scratch), archive_name)
        os.replace(fetched, place / archive_name)
    if not wanted.is_dir():
        raise DataError(
            f"{wanted.absolute()}: not in the archive; {place / archive_name} {folder_content(place / archive_name)}"
        )
    return wanted


def _fetch(url: str, scratch: Path, name: str) -> Path:
    """Download and unpack with beir's own helpers; check the answer's status before and the archive in between."""
    import requests
    from beir import util

    archive = scratch / f"{name}.zip"
    advice = "check the name and the connection, or put the unpacked data set there yourself"
    try:
        # beir's helper writes whatever arrives, an error page included.
        with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
            answer.raise_for_status()
        util.download_url(url, str(archive))
    except requests.RequestException as error:
        raise DataError(f"{url}: the download failed ({error}); {advice}") from error
    _check_archive(archive, url, name)
    util.unzip(str(archive), str(scratch))
    return scratch / name


def _check_archive(archive: Path, url: str, name: str) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.namelist()
            damaged = opened.testzip()
    except zipfile.BadZipFile as error:
        raise DataError(f"{url}: what arrived is not a whole zip file ({error}); try again") from error
    if damaged is not None:
        raise DataError(f"{url}: '{damaged}' in the archive is damaged; try again")
    for member in members:
        parts = member.replace("\\", "/").split("/")
        if member.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise DataError(f"{url}: refused, the archive writes outside its folder: '{member}'")
    if not any(member.startswith(f"{name}/") for member in members):
        raise DataError(f"{url}: the archive has no folder '{name}'; it holds {', '.join(members[:5])}")


def _split_names(file_names: Iterator[str]) -> Iterator[str]:
    for file_name in file_names:
        for suffix in (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet"):
            if file_name.endswith(suffix):
                stem = file_name.removesuffix(suffix)
                # Parts are called test-00000-of-00002.
                yield stem.split("-0")[0] if "-of-" in stem else stem
                break
