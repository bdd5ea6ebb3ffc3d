"""Results on BEIR that others published, to be printed beside one's own.

Nothing here was measured by this toolkit. The values are those of Anserini's regression experiments (Lin et al.,
https://github.com/castorini/anserini, BEIR v1.0.0): nDCG@10 and Recall@100 on the test split.
"""

from dataclasses import dataclass

# Names in tables, and under which users evaluate the same model: lower case, without the part before a slash.
_SYSTEMS = {"BM25 flat": "bm25", "SPLADE++ ED": "splade-cocondenser-ensembledistil", "SPLADE-v3": "splade-v3"}
# nDCG@10 and Recall@100 of each of them in turn, on the thirteen public data sets that the SPLADE papers average over.
_VALUES = {
    "trec-covid": (0.5947, 0.1091, 0.7270, 0.1283, 0.7299, 0.1409),
    "nfcorpus": (0.3218, 0.2457, 0.3473, 0.2847, 0.3629, 0.2976),
    "nq": (0.3055, 0.7513, 0.5372, 0.9296, 0.5842, 0.9438),
    "hotpotqa": (0.6330, 0.7957, 0.6868, 0.8177, 0.6884, 0.8215),
    "fiqa": (0.2361, 0.5395, 0.3473, 0.6314, 0.3798, 0.6671),
    "arguana": (0.3970, 0.9324, 0.5218, 0.9758, 0.4845, 0.9794),
    "webis-touche2020": (0.4422, 0.5822, 0.2464, 0.4715, 0.3086, 0.5128),
    "quora": (0.7886, 0.9733, 0.8344, 0.9864, 0.8141, 0.9858),
    "dbpedia-entity": (0.3180, 0.4682, 0.4374, 0.5627, 0.4476, 0.5695),
    "scidocs": (0.1490, 0.3477, 0.1588, 0.3730, 0.1567, 0.3673),
    "fever": (0.6513, 0.9185, 0.7879, 0.9459, 0.8015, 0.9550),
    "climate-fever": (0.1651, 0.4249, 0.2298, 0.5207, 0.2625, 0.5737),
    "scifact": (0.6789, 0.9253, 0.7036, 0.9353, 0.7140, 0.9360),
}
BEIR_13 = tuple(_VALUES)


@dataclass(frozen=True)
class PublishedSystem:
    """A system, the name under which users evaluate its model, and its published results by data set."""

    name: str
    model: str
    ndcg_10: dict[str, float]
    recall_100: dict[str, float]
    source: str = "Anserini's BEIR v1.0.0 regressions"


PUBLISHED_SYSTEMS = {
    name: PublishedSystem(
        name,
        model,
        {dataset: values[2 * i] for dataset, values in _VALUES.items()},
        {dataset: values[2 * i + 1] for dataset, values in _VALUES.items()},
    )
    for i, (name, model) in enumerate(_SYSTEMS.items())
}


def published_system(model: str) -> PublishedSystem | None:
    """Return the published results of a model, or None when there are none.

    Example:
        >>> published_system("naver/splade-v3").ndcg_10["scifact"]
        0.714
        >>> published_system("my/splade-v3-finetuned") is None
        True
    """
    name = model.rstrip("/").rpartition("/")[2].lower()
    return next((system for system in PUBLISHED_SYSTEMS.values() if name == system.model), None)
