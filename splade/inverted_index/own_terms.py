"""The terms of an index whose vectors have a vocabulary of their own, which no model here has: words, for instance.

They are in a file beside the index, named by its digest, which the index's metadata hold. So the terms of an index are
there as long as it is, also while another takes its place.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from splade.errors import DataError, IndexFileError
from splade.inverted_index.read import InvertedIndex
from splade.storage.atomic import read_json, write_json

OWN_TERMS = "own_terms"
"""Name in an index's metadata of the digest of its terms."""


def has_own_terms(postings: InvertedIndex) -> bool:
    """Return whether the terms of an index are no model's."""
    return OWN_TERMS in postings.metadata


def write_terms(folder: Path, terms: list[str]) -> None:
    """Write the terms of an index that is to be built in a folder."""
    write_json(_place(folder, terms_digest(terms)), terms, indent=None)


def read_terms(postings: InvertedIndex) -> list[str] | None:
    """Return the terms of an index by their numbers; None where they are those of a model.

    Raises:
        IndexFileError: they are missing or damaged.
    """
    digest = postings.metadata.get(OWN_TERMS)
    if digest is None:
        return None
    place = _place(postings.path.parent, str(digest))
    try:
        terms = read_json(place)
    except DataError as error:
        raise IndexFileError(f"{postings.path}: its terms cannot be read; index again: {error}") from error
    if not isinstance(terms, list) or len(terms) != postings.vocab_size or terms_digest(map(str, terms)) != digest:
        raise IndexFileError(f"{place}: not the terms of {postings.path.name}, or damaged; index again")
    return terms


def copy_terms(postings: InvertedIndex, folder: Path) -> None:
    """Write the terms of an index, where it has its own, beside a copy of it in a folder, and remove others there."""
    terms = read_terms(postings)
    if terms is not None:
        write_terms(folder, terms)
    remove_other_terms(folder, postings)


def remove_other_terms(folder: Path, postings: InvertedIndex) -> None:
    """Remove the terms of an index that another has replaced in a folder."""
    kept = _place(folder, str(postings.metadata.get(OWN_TERMS)))
    for other in folder.glob(_place(folder, "*").name):
        if other != kept:
            other.unlink()


def _place(folder: Path, digest: str) -> Path:
    return folder / f"terms-{digest[:16]}.json"


def terms_digest(terms: Iterable[str]) -> str:
    """Return what tells terms, and their order, from others."""
    value = sha256()
    for term in terms:
        encoded = term.encode("utf-8", "surrogatepass")
        value.update(len(encoded).to_bytes(8, "little") + encoded)
    return value.hexdigest()
