"""What made an index, and where the texts of its documents are: searching it needs no more than its folder.

`origin.json` lies beside the index. The texts stay in the collection that was indexed, where its line index finds them;
on request they are copied into the folder of the index, which can then be moved or given away.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from omegaconf import OmegaConf

from splade.config.schema import Experiment
from splade.config.validate import to_experiment
from splade.datasets.collections import open_collection
from splade.datasets.text_collection import FileCollection, TextCollection
from splade.encoding.sparse_model import SparseModel
from splade.errors import DataError, IndexFileError, SpladeError, WriteError
from splade.progress import progress
from splade.storage.atomic import read_json_object, replacing, write_json

logger = logging.getLogger(__name__)

ORIGIN_FILE, TEXTS_FILE = "origin.json", "texts.jsonl"
_INTERPOLATION = "${"


class Texts(Protocol):
    """Where the texts of documents are found."""

    def get(self, doc_id: str) -> str | None:
        """Return the text of a document, or None."""


@dataclass(frozen=True)
class Origin:
    """What is known of an index besides its postings.

    Attributes:
        model: full key to value, of the settings that load the model.
        max_length: tokens after which its documents were cut.
        collections: paths of the collections that its documents came from; of two with one id, the later one counts.
    """

    model: Mapping[str, object]
    max_length: int
    collections: tuple[str, ...]

    @cached_property
    def experiment(self) -> Experiment:
        """The settings that load the model."""
        sections: dict[str, dict[str, object]] = {"config": {"max_length": self.max_length}}
        for name, value in self.model.items():
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = value
        return to_experiment(OmegaConf.create(sections))


def read_origin(folder: Path) -> Origin | None:
    """Read what is known of the index in a folder; None where nothing is.

    Raises:
        IndexFileError: the file is not what indexing writes.
    """
    path = folder / ORIGIN_FILE
    if not path.is_file():
        return None
    try:
        content = read_json_object(path)
        if _INTERPOLATION in json.dumps(content):
            raise DataError(f"'{_INTERPOLATION}' in it")
        origin = Origin(content["model"], content["max_length"], tuple(map(str, content["collections"])))
        _ = origin.experiment  # an error now, where it cannot be
        return origin
    except (SpladeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise IndexFileError(f"{path}: not what indexing writes ({error}); remove it, and name the model") from error


def write_origin(folder: Path, model: SparseModel, corpus: object, store_texts: bool = False) -> None:
    """Write down what made an index and where its texts are; with `store_texts`, copy them into its folder.

    A folder that cannot be written to holds a finished index: it goes without.
    """
    collections = _paths_of(corpus)
    try:
        if isinstance(corpus, TextCollection) and store_texts:
            _store(folder / TEXTS_FILE, corpus)
            collections = [TEXTS_FILE]
        known = Origin(model.network.loaded_from, model.documents.max_length, tuple(collections))
        if _read_quietly(folder) != known:
            _write(folder, known)
        if TEXTS_FILE not in collections:
            (folder / TEXTS_FILE).unlink(missing_ok=True)  # of an earlier index, or no longer asked for
    except (WriteError, OSError) as error:
        logger.warning("nothing is written down of what made the index: %s", error)


def note_update(folder: Path, added: object, doc_ids: Iterable[str]) -> None:
    """Write down where the texts of added documents are; texts that are kept with the index are brought up to date."""
    origin = _read_quietly(folder)
    if origin is None:
        return
    collections = [*origin.collections, *_paths_of(added)]
    if TEXTS_FILE in origin.collections:
        texts = DocumentTexts(folder, collections, added if isinstance(added, TextCollection) else None)
        _store(folder / TEXTS_FILE, ((doc_id, text) for doc_id in doc_ids if (text := texts.get(doc_id)) is not None))
        collections = [TEXTS_FILE]
    _write(folder, Origin(origin.model, origin.max_length, tuple(dict.fromkeys(collections))))


def copy_origin(folder: Path, copy: Path) -> None:
    """Write down of an index that was made of another one what is known of that; texts are not copied."""
    origin = _read_quietly(folder)
    if origin is not None:
        paths = tuple(str((folder / path).absolute()) for path in origin.collections)
        _write(copy, Origin(origin.model, origin.max_length, paths))


class DocumentTexts:
    """The texts of the documents of an index, found by id.

    Attributes:
        missing: what is wrong with the collections that could not be opened.
    """

    def __init__(self, folder: Path, paths: Iterable[str], newest: TextCollection | None = None):
        self._collections = [] if newest is None else [newest]
        self.missing: list[str] = []
        for path in reversed(list(paths)):
            try:
                collection = open_collection(folder / path)
                len(collection)
                self._collections.append(collection)
            except DataError as error:
                self.missing.append(str(error))

    def get(self, doc_id: str) -> str | None:
        """Return the text of a document, or None where it is not known."""
        texts = (collection.get(doc_id) for collection in self._collections)
        return next((text for text in texts if text is not None), None)


def _read_quietly(folder: Path) -> Origin | None:
    try:
        return read_origin(folder)
    except IndexFileError:
        return None


def _write(folder: Path, origin: Origin) -> None:
    content = {"model": origin.model, "max_length": origin.max_length, "collections": list(origin.collections)}
    write_json(folder / ORIGIN_FILE, content)


def _paths_of(corpus: object) -> list[str]:
    """Return where a collection can be opened again, if it can."""
    if not isinstance(corpus, FileCollection):
        return []
    path = corpus.source.path.absolute()
    return [str(path)] if path.exists() else []


def _store(path: Path, pairs: TextCollection | Iterable[tuple[str, str]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for doc_id, text in progress(pairs, "storing texts", unit="document"):
            file.write(json.dumps({"_id": doc_id, "text": text}, ensure_ascii=False) + "\n")
