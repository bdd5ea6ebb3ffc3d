"""Opening collections and queries: which files a path stands for, and what kind they are."""

from pathlib import Path

from splade.datasets.file_shards import is_parquet, shard_files, shards_source
from splade.datasets.ir_datasets_source import open_texts
from splade.datasets.text_collection import FileCollection, TextCollection
from splade.errors import DataError
from splade.storage.line_index import LineSource
from splade.storage.paths import IR_DATASETS_SCHEME, folder_content, resolve_path
from splade.storage.text_files import begins_json_object, head


def open_collection(path: str | Path) -> TextCollection:
    """Open a collection of passages.

    Args:
        path: a TSV or BEIR `corpus.jsonl`, perhaps gzip-compressed; a folder with `raw.tsv`, `corpus.jsonl`, or a
            folder `corpus` of JSON-lines or parquet files; `pkg://package/...`; `ir_datasets:<id>`.

    Raises:
        DataError: nothing usable is there. Wrong lines are found when they are read.
    """
    return _open(path, "corpus")


def open_queries(path: str | Path) -> TextCollection:
    """Open a collection of queries: as `open_collection`, with `queries` in place of `corpus`."""
    return _open(path, "queries")


def _open(path: str | Path, role: str) -> TextCollection:
    if str(path).startswith(IR_DATASETS_SCHEME):
        return open_texts(str(path), role)
    found = resolve_path(path)
    source = _find_source(found, role)
    return FileCollection(source, _kind_of(source))


def _find_source(found: Path, role: str) -> LineSource:
    if found.is_file():
        return shards_source(found, (found,))
    for name in ("raw.tsv", f"{role}.jsonl"):
        for candidate in (found / name, found / f"{name}.gz"):
            if candidate.is_file():
                return LineSource.of_file(candidate)
    # In a folder of all roles only the shards named after this one count: queries are no collection.
    names = [entry.name for entry in found.iterdir()]
    only_documents = role == "corpus" and not any(name.startswith(("queries", "qrels")) for name in names)
    stem = "" if found.name == role or only_documents else role
    for folder, files in ((found / role, shard_files(found / role)), (found, shard_files(found, stem))):
        if files:
            return shards_source(folder, files)
    raise DataError(
        f"{found.absolute()}: the folder {folder_content(found)}; expected raw.tsv[.gz], {role}.jsonl[.gz], "
        f"or a folder '{role}' of .jsonl or .parquet files"
    )


def _kind_of(source: LineSource) -> str:
    """Tell JSON lines from TSV by the first line: JSON allows no tab inside its strings, a TSV line needs one."""
    if is_parquet(source.files[0]):
        return "jsonl"
    first_line = head(source.files[0]).partition("\n")[0]
    return "jsonl" if begins_json_object(first_line) and "\t" not in first_line else "tsv"
