"""Keys of the tasks that hand models and vectors to other systems."""

from dataclasses import dataclass

from splade.config.declare import NOTHING, key


@dataclass
class PushConfig:
    """`push`: a model with its card, as a folder and, when asked, on the Hugging Face hub."""

    folder: str | None = key("where it is put; null: config.checkpoint_dir/hub", affects=NOTHING)
    repo_id: str | None = key("owner/name on the hub to upload to; null: only the folder is made", affects=NOTHING)
    license: str | None = key("of the model, as the hub names them: apache-2.0, cc-by-nc-sa-4.0 ...", affects=NOTHING)
    private: bool = key("whether a new repository is private", True, affects=NOTHING)


@dataclass
class ExportConfig:
    """`export`: to a vector database that is running, besides the files."""

    uri: str | None = key(
        "OpenSearch, Qdrant or Milvus to send the documents to (Qdrant, Milvus: or a path, for their embedded forms)",
        affects=NOTHING,
    )
    collection: str = key("name of the collection, or index, there", "splade", affects=NOTHING)
