"""BEIR data sets: the folder layout, and fetching one that is missing."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from splade.datasets.dataset import Dataset
from splade.errors import DataError, nearest
from splade.storage.archives import unzip
from splade.storage.download import HEADERS, TIMEOUT_SECONDS, receive
from splade.storage.locks import LOCK_FILE, FolderLock
from splade.storage.paths import check_folder_name, folder_content, resolve_path

URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{name}.zip"
PUBLIC = tuple(
    "msmarco trec-covid nfcorpus nq hotpotqa fiqa arguana webis-touche2020 cqadupstack quora dbpedia-entity scidocs "
    "fever climate-fever scifact".split()
)
"""Data sets that BEIR's server has."""
CQADUPSTACK_FORUMS = tuple(
    "android english gaming gis mathematica physics programmers stats tex unix webmasters wordpress".split()
)
"""Sub-forums of CQADupStack, folders of `cqadupstack/`; the published figure is the mean of their figures."""

CQADUPSTACK = "cqadupstack"


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
    found = find_or_download(name, folder, url or URL, split)
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
    check_split(folder, split)
    dataset = Dataset.open(name or folder.name, folder, folder, folder, split)
    judged = dataset.judged_queries
    for query_id in dataset.qrels or {}:
        if query_id not in judged:
            raise DataError(f"{folder}: query '{query_id}' is judged in the split '{split}' but has no text")
    return replace(dataset, queries=judged)


def check_split(folder: Path, split: str) -> None:
    """Raise a DataError that names the splits that exist, unless a BEIR folder has judgements of this one."""
    splits = available_splits(folder)
    if split not in splits:
        there = ", ".join(splits) or "none"
        raise DataError(f"{folder.absolute()}: there are no judgements of the split '{split}'; splits: {there}")


def available_splits(folder: Path) -> list[str]:
    """Return the names of the splits that have judgements, sorted."""
    qrels = folder / "qrels"
    names = (file.name for file in qrels.iterdir()) if qrels.is_dir() else iter(())
    return sorted(set(_split_names(names)))


def find_or_download(name: str, folder: str | Path, url: str = URL, split: str = "test") -> Path:
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
    if url == URL:
        check_beir_name(archive_name, place)
    address = url.replace("{name}", archive_name)
    scratch = place / f".{archive_name}.download"
    with FolderLock(scratch):
        try:
            for left in scratch.iterdir():  # by a process that was killed
                if left.name != LOCK_FILE:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            fetched = _fetch(address, scratch, archive_name)
            _check_content(fetched, wanted.relative_to(place), split, address)
            if not wanted.is_dir():  # nobody else was faster
                os.replace(fetched, place / archive_name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return wanted


def check_beir_name(name: str, place: Path) -> None:
    """Refuse a name that is near that of a folder or a public data set, instead of asking a server for it.

    Raises:
        DataError: it is.
    """
    if name in PUBLIC:
        return
    there = (
        sorted(entry.name for entry in place.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if place.is_dir()
        else []
    )
    if meant := nearest(name, [*there, *PUBLIC]):
        holds = f"{place.absolute()} holds {', '.join(there)}" if there else f"{place.absolute()} holds no data set"
        raise DataError(
            f"beir.dataset={name}: no such folder, and no public data set of BEIR{meant} ({holds}; the public ones are "
            f"{', '.join(PUBLIC)}; from elsewhere: beir.url)"
        )


def _fetch(url: str, scratch: Path, name: str) -> Path:
    """Download and unpack an archive."""
    import requests

    archive = scratch / f"{name}.zip"
    try:
        with requests.get(url, headers=HEADERS, stream=True, timeout=TIMEOUT_SECONDS) as answer:
            answer.raise_for_status()
            receive(answer, archive)
    except requests.RequestException as error:
        raise DataError(
            f"{url}: the download failed ({error}); check the name and the connection, or put the unpacked data set "
            "there yourself"
        ) from error
    try:
        unzip(archive, scratch, name)
    except ValueError as error:
        raise DataError(f"{url}: {error}") from error
    return scratch / name


def _check_content(fetched: Path, wanted: Path, split: str, url: str) -> None:
    """Read a data set before it is put in place: one that is there is used, whatever it is.

    Raises:
        DataError: a file is missing or wrong.
    """
    folder = fetched.parent / wanted
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; {fetched} {folder_content(fetched)}")
        whole = wanted.as_posix() == CQADUPSTACK
        for one in [folder / forum for forum in CQADUPSTACK_FORUMS] if whole else [folder]:
            splits = available_splits(one)
            dataset = beir_dataset(one, split if split in splits or not splits else splits[0])
            len(dataset.documents)
    except DataError as error:
        inside = str(error).replace(f"{fetched.parent.absolute()}{os.sep}", "")
        raise DataError(f"{url}: what arrived cannot be used and is not kept: {inside}") from error


def _split_names(file_names: Iterator[str]) -> Iterator[str]:
    for file_name in file_names:
        for suffix in (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet"):
            if file_name.endswith(suffix):
                stem = file_name.removesuffix(suffix)
                # Parts are called test-00000-of-00002.
                yield stem.split("-0")[0] if "-of-" in stem else stem
                break
