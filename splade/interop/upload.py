"""Sending exported documents to a vector database that is running, through its own client.

What is there already is replaced, so sending that was cut short is done again by the same command.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from splade.errors import ConfigError
from splade.interop.milvus_rows import INDEX, LONGEST_ID
from splade.interop.qdrant import VECTOR
from splade.progress import progress
from splade.storage.atomic import JsonObject, read_json_object

SECONDS = 60


def upload_opensearch(folder: Path, uri: str, collection: str) -> None:
    """Send `bulk.<n>.ndjson` to OpenSearch; make the index where it is missing.

    Raises:
        ConfigError: the client is not installed, or OpenSearch cannot be reached or refuses a request.
    """
    try:
        from opensearchpy import OpenSearch
        from opensearchpy.exceptions import OpenSearchException
    except ImportError as error:
        raise ConfigError("sending to OpenSearch needs its client: pip install 'splade[opensearch]'") from error
    client = OpenSearch([uri], timeout=SECONDS, max_retries=3, retry_on_timeout=True)
    try:
        if not client.indices.exists(index=collection):
            client.indices.create(index=collection, body=read_json_object(folder / "index.json"))
        for part in _parts(folder, "bulk.*.ndjson"):
            answer: JsonObject = client.bulk(body=part.read_text(encoding="utf-8"), index=collection)
            if answer["errors"]:
                refused = next(item["index"] for item in answer["items"] if "error" in item["index"])
                raise ConfigError(f"{uri}: the document '{refused['_id']}' is refused: {refused['error']}")
    except OpenSearchException as error:
        raise ConfigError(f"OpenSearch at {uri}: {_in_short(error)}") from error


def upload_qdrant(folder: Path, uri: str, collection: str) -> None:
    """Send `points.<n>.json` to Qdrant, or to a folder that its client keeps itself.

    Raises:
        ConfigError: the client is not installed, or Qdrant cannot be reached or refuses a request.
    """
    try:
        from qdrant_client import QdrantClient, models
        from qdrant_client.http.exceptions import ApiException
    except ImportError as error:
        raise ConfigError("sending to Qdrant needs its client: pip install 'splade[qdrant]'") from error
    there = {"url": uri, "timeout": SECONDS, "check_compatibility": False} if "://" in uri else {"path": uri}
    client = QdrantClient(**there)  # type: ignore[arg-type]  # of another type each
    try:
        if not client.collection_exists(collection):
            client.create_collection(collection, {}, sparse_vectors_config={VECTOR: models.SparseVectorParams()})
        for part in _parts(folder, "points.*.json"):
            points = [models.PointStruct(**point) for point in read_json_object(part)["points"]]
            client.upsert(collection, points, wait=True)
    except (ApiException, OSError) as error:
        raise ConfigError(f"Qdrant at {uri}: {_in_short(error)}") from error
    finally:
        client.close()


def upload_milvus(folder: Path, uri: str, collection: str) -> None:
    """Send `rows.<n>.json` to Milvus, or to a file that its embedded form keeps.

    Raises:
        ConfigError: the client is not installed, or Milvus cannot be reached or refuses a request.
    """
    try:
        from pymilvus import DataType, MilvusClient, MilvusException
    except ImportError as error:
        raise ConfigError("sending to Milvus needs its client: pip install 'splade[milvus]'") from error
    try:
        client = MilvusClient(uri, timeout=SECONDS)
        if not client.has_collection(collection):
            schema = client.create_schema(auto_id=False)
            schema.add_field("doc_id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
            schema.add_field("vector", DataType.SPARSE_FLOAT_VECTOR)
            index = client.prepare_index_params()
            index.add_index("vector", index_type=INDEX[0]["indexType"], metric_type=INDEX[0]["metricType"])
            client.create_collection(collection, schema=schema, index_params=index)
        for part in _parts(folder, "rows.*.json"):
            rows = read_json_object(part)["rows"]
            for row in rows:
                row["vector"] = {int(term): weight for term, weight in row["vector"].items()}
            client.upsert(collection, rows)
        client.flush(collection)  # its embedded form searches without an index what is not flushed
        client.close()
    except MilvusException as error:
        raise ConfigError(f"Milvus at {uri}: {_in_short(error)}") from error


UPLOADS: dict[str, Callable[[Path, str, str], None]] = {
    "opensearch": upload_opensearch,
    "qdrant": upload_qdrant,
    "milvus": upload_milvus,
}


def _parts(folder: Path, pattern: str) -> Iterator[Path]:
    yield from progress(sorted(folder.glob(pattern)), "sending", unit="file")


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
