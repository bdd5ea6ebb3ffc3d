"""Keys of what runs on many machines: Ray, and Milvus as the place of the index."""

from dataclasses import dataclass
from typing import Literal

from splade.config.declare import NOTHING, SEARCH, key

Launcher = Literal["local", "torchrun", "ray"]
MilvusParams = Literal["default"] | dict[str, str | float]


@dataclass
class RayConfig:
    """`ray`: the cluster of `launcher=ray`, and what each worker takes of it."""

    address: str | None = key(
        "auto, HOST:PORT or ray://HOST:PORT: a cluster that runs; null: this machine, as long as the command runs",
        affects=NOTHING,
    )
    workers: int | None = key(
        "parts that are worked on at a time; null: as many as there is room for", affects=NOTHING, minimum=1
    )
    cpus: int = key("processors of a worker, and threads of an index shard's search", 1, affects=NOTHING, minimum=1)
    gpus: float | None = key(
        "GPUs of a worker; null: one where the cluster has any, else none", affects=NOTHING, minimum=0
    )
    gone_seconds: float = key(
        "seconds without the cluster's head after which that is an error", 30.0, affects=NOTHING, above=0
    )


@dataclass
class MilvusConfig:
    """`milvus`: the collection of `retriever=milvus`."""

    uri: str | None = key(
        "of a server or cluster, http://HOST:19530; null: a file beside the index, and nothing to start",
        affects=NOTHING,
    )
    token: str | None = key("user:password, or a key", affects=NOTHING)
    collection: str = key("its name; letters, digits and underscores", "splade", affects=NOTHING)
    batch_size: int = key("documents sent at once", 1000, affects=NOTHING, minimum=1)
    timeout: float = key("seconds that Milvus may take to answer, its retries included", 30.0, affects=NOTHING, above=0)
    index_type: str = key("as Milvus calls it", "SPARSE_INVERTED_INDEX", affects=SEARCH)
    index_params: MilvusParams = key(
        "of its index, such as {inverted_index_algo: DAAT_MAXSCORE}, or SINDI in Milvus 3", "default", affects=SEARCH
    )
    search_params: MilvusParams = key("such as {drop_ratio_search: 0.2}", "default", affects=SEARCH)
