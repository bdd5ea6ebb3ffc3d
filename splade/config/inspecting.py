"""Keys of the tasks that look inside: explanations and figures."""

from dataclasses import dataclass
from typing import Literal

from splade.config.declare import NOTHING, key


@dataclass
class ExplainConfig:
    """`explain`: what splade.explain looks into, and where else it writes what it shows."""

    text: str | None = key("a text; with query: a document", affects=NOTHING)
    file: str | None = key("texts of a file, a collection as any other", affects=NOTHING, names_files=True)
    doc_ids: list[str] | None = key(
        "documents of config.index_dir or of data.COLLECTION_PATH; null, with query: the best of the index",
        affects=NOTHING,
    )
    side: Literal["document", "query"] = key("what a text is, without a query", "document", affects=NOTHING)
    run: str | None = key(
        "a run, JSON or TREC, or its folder: why its first document is above its second, or doc_ids in this order",
        affects=NOTHING,
        names_files=True,
    )
    query_id: str | None = key("a query of data.Q_COLLECTION_PATH; run: null: its first", affects=NOTHING)
    other_model: str | None = key(
        "a second model, hub name, folder or checkpoint: show the differences", affects=NOTHING, names_files=True
    )
    top: int = key("terms shown", 20, affects=NOTHING, minimum=1)
    most: int = key("texts or documents shown", 3, affects=NOTHING, minimum=1)
    write: list[str] | None = key("files to write: [a.json, b.html]", affects=NOTHING)


@dataclass
class FiguresConfig:
    """`figures`: what splade.figures draws."""

    folder: str | None = key(
        "any folder with what the tasks wrote, also several levels below; null: the folders of config",
        affects=NOTHING,
        names_files=True,
    )
    out: str | None = key("where the figures go; null: config.out_dir/figures, or folder/figures", affects=NOTHING)
