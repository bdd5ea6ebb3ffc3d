"""Vectors of a whole collection in files: those that `splade.encode` writes, and those of other systems.

`splade.encode` writes a folder of parts, each of the same number of documents and complete or absent, and
`vectors.json`, which says of which model and collection they are and how many there must be. Every process may write
each of them, and a run that was killed goes on with the parts that are missing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Literal

from splade.config.schema import LARGEST_INT
from splade.datasets.text_collection import CONTENT_MARK
from splade.errors import ConfigError, DataError
from splade.interop import ciff, jsonl_vectors, npz_vectors, parquet_vectors
from splade.interop.vector_groups import Group
from splade.storage.atomic import read_json_object, write_json
from splade.storage.cache import file_digest
from splade.storage.paths import resolve_path

Form = Literal["parquet", "npz", "jsonl"]
FORMS: dict[Form, ModuleType] = {"parquet": parquet_vectors, "npz": npz_vectors, "jsonl": jsonl_vectors}
READ: dict[str, ModuleType] = {**{str(form): module for form, module in FORMS.items()}, "ciff": ciff}
"""What is read; `FORMS` is also written."""
MANIFEST = "vectors.json"
_WINDOW, _MANY_PARTS = 512, 64
PART_SIZE = 100 * _WINDOW  # whole windows of encoding


def small_parts(n_docs: int) -> int:
    """Return how many documents a part has so that a few dozen workers have enough parts; whole windows of encoding."""
    return min(PART_SIZE, max(1, n_docs // _WINDOW // _MANY_PARTS) * _WINDOW)


@dataclass(frozen=True)
class Manifest:
    """What a folder of parts holds.

    Attributes:
        form: format of the parts.
        model: name of the model.
        fingerprint: of the model, its fields.
        max_length: tokens after which texts were cut.
        source: digest of the collection.
        n_docs: documents in all.
        part_size: documents of each part but the last.
    """

    form: Form
    model: str
    fingerprint: dict[str, str | int]
    max_length: int
    source: str
    n_docs: int
    part_size: int

    @property
    def n_parts(self) -> int:
        """Number of parts of a complete folder."""
        return -(-self.n_docs // self.part_size)

    def part(self, folder: Path, number: int) -> Path:
        """Return the file of a part."""
        return folder / f"part-{number:05d}.{self.form}"

    def rows(self, number: int) -> range:
        """Return the rows of the collection that are in a part."""
        return range(number * self.part_size, min(self.n_docs, (number + 1) * self.part_size))


class VectorFiles:
    """Vectors in a file, or in all files of a folder one after the other.

    Args:
        path: Parquet, `.npz`, JSON lines (perhaps gzipped), CIFF, or a folder of files of one of these forms.
        tokens: the vocabulary that the vectors are over.

    Attributes:
        name: what the user gave.
        manifest: what `splade.encode` wrote of them; None for those of others.
        files: the files, in their order.

    Raises:
        DataError: no such file, no file of a known form, or parts that are missing.
    """

    def __init__(self, path: str | Path, tokens: Sequence[str]):
        self.name = str(path)
        self._tokens = tokens
        place = resolve_path(path)
        self.manifest = read_manifest(place) if (place / MANIFEST).is_file() else None
        self.files = self._found(place)

    def __iter__(self) -> Iterator[Group]:
        """Yield ids with their vectors, some at a time, in the order of the files."""
        for file in self.files:
            yield from READ[_form(file)].read(file, self._tokens)

    def terms(self) -> list[str]:
        """Return the terms that occur, in the order of their bytes: the vectors' own vocabulary, for `tokens`.

        Raises:
            DataError: the files have numbers of terms only.
        """
        found: set[str] = set()
        for file in self.files:
            module = READ[_form(file)]
            if not hasattr(module, "terms"):
                raise DataError(
                    f"{file}: it has the numbers of terms, not the terms themselves, so only the model that made them "
                    "can say what they are: data.VOCABULARY=model"
                )
            found.update(module.terms(file))
        if not found:
            raise DataError(f"{self.name}: no term in any of the vectors")
        return sorted(found, key=lambda term: term.encode("utf-8", "surrogatepass"))

    def digest(self) -> str:
        """Return name and digest of the files' content."""
        joined = sha256("".join(map(file_digest, self.files)).encode()).hexdigest()[:32]
        return f"{self.name} {CONTENT_MARK}{joined}"

    def _found(self, place: Path) -> list[Path]:
        if self.manifest is not None:
            wanted, there = self.manifest.n_parts, {file.name for file in place.iterdir() if file.is_file()}
            parts = (self.manifest.part(place, number) for number in range(wanted))
            found = list(takewhile(lambda part: part.name in there, parts))
            if len(found) < wanted:
                raise DataError(
                    f"{place}: parts are missing, such as {self.manifest.part(place, len(found)).name} of {wanted}; "
                    "give the same command (splade.encode) again"
                )
            return found
        files = [place]
        if place.is_dir():
            files = [resolve_path(file) for file in sorted(place.iterdir()) if _form_or_none(file)]
        if not files or len({_form(file) for file in files}) > 1:
            what = "files of several forms" if files else "no file of vectors"
            raise DataError(
                f"{place}: {what}; vectors are .parquet, .npz, .jsonl, .jsonl.gz or .ciff, in a folder one of these"
            )
        return files


def files_of_form(place: Path, form: Form) -> list[Path]:
    """Return a file of vectors, or those of a folder, all of one form.

    Raises:
        DataError: there is none, or one of another form.
    """
    found = VectorFiles(place, ()).files
    if {_form(file) for file in found} != {form}:
        raise DataError(f"{place}: {form} vectors are needed, and these are {_form(found[0])}")
    return found


def read_manifest(folder: Path) -> Manifest:
    """Return what `vectors.json` says.

    Raises:
        DataError: it is not what `splade.encode` writes.
    """
    said = read_json_object(folder / MANIFEST)
    try:
        manifest = Manifest(**said)
        counts = (manifest.n_docs, manifest.part_size, manifest.max_length)
        fits = manifest.form in FORMS and all(type(count) is int and 0 < count <= LARGEST_INT for count in counts)
    except TypeError:
        fits = False
    if not fits or not isinstance(manifest.fingerprint, dict):
        raise DataError(f"{folder / MANIFEST}: not what splade.encode writes; encode again into another folder")
    return manifest


def begin(folder: Path, manifest: Manifest, overwrite: bool) -> Manifest:
    """Begin to write parts into a folder, or go on with those of an earlier run of the same model and collection.

    Returns:
        What is written: the size of the parts is the earlier run's.

    Raises:
        ConfigError: the folder holds other vectors, and `overwrite` is False.
    """
    if (folder / MANIFEST).is_file():
        there = read_manifest(folder)
        free = {"model": "", "part_size": 0}
        if asdict(there) | free == asdict(manifest) | free:
            return there
        if not overwrite:
            raise ConfigError(
                f"{folder} holds vectors of '{there.model}', {there.source}; give another config.out_dir, or replace "
                "them with config.overwrite=true"
            )
        for left in folder.glob(f"part-*.{there.form}"):
            left.unlink()
    write_json(folder / MANIFEST, asdict(manifest))
    return manifest


def _form(file: Path) -> str:
    form = _form_or_none(file)
    if form is None:
        raise DataError(f"{file}: vectors are .parquet, .npz, .jsonl, .jsonl.gz or .ciff")
    return form


def _form_or_none(file: Path) -> str | None:
    name = file.name.removesuffix(".gz")
    return next((form for form in READ if name.endswith(f".{form}") and (name == file.name or form == "jsonl")), None)
