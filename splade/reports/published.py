"""Results on BEIR that others published, to be printed beside one's own.

Nothing here was measured by this toolkit. The values are those of Anserini's regression experiments (Lin et al.,
https://github.com/castorini/anserini, BEIR v1.0.0): nDCG@10 and Recall@100 on the test split.
"""

from dataclasses import dataclass

# The thirteen public data sets that the SPLADE papers average over, in their usual order.
BEIR_13 = (
    "trec-covid",
    "nfcorpus",
    "nq",
    "hotpotqa",
    "fiqa",
    "arguana",
    "webis-touche2020",
    "quora",
    "dbpedia-entity",
    "scidocs",
    "fever",
    "climate-fever",
    "scifact",
)


@dataclass(frozen=True)
class PublishedSystem:
    """A system and its published results.

    Attributes:
        name: as in the tables of papers.
        models: names under which users evaluate it, lower case, without the part before a slash.
        source: where the values come from.
        ndcg_10: data set to nDCG@10.
        recall_100: data set to Recall@100.
    """

    name: str
    models: tuple[str, ...]
    source: str
    ndcg_10: dict[str, float]
    recall_100: dict[str, float]


def _system(name: str, models: tuple[str, ...], *values: tuple[float, float]) -> PublishedSystem:
    ndcg_10, recall_100 = zip(*values, strict=True)
    return PublishedSystem(
        name,
        models,
        "Anserini's BEIR v1.0.0 regressions",
        dict(zip(BEIR_13, ndcg_10, strict=True)),
        dict(zip(BEIR_13, recall_100, strict=True)),
    )


PUBLISHED_SYSTEMS: dict[str, PublishedSystem] = {
    system.name: system
    for system in (
        _system(
            "BM25 flat",
            ("bm25",),
            (0.5947, 0.1091),
            (0.3218, 0.2457),
            (0.3055, 0.7513),
            (0.6330, 0.7957),
            (0.2361, 0.5395),
            (0.3970, 0.9324),
            (0.4422, 0.5822),
            (0.7886, 0.9733),
            (0.3180, 0.4682),
            (0.1490, 0.3477),
            (0.6513, 0.9185),
            (0.1651, 0.4249),
            (0.6789, 0.9253),
        ),
        _system(
            "SPLADE++ ED",
            ("splade-cocondenser-ensembledistil",),
            (0.7270, 0.1283),
            (0.3473, 0.2847),
            (0.5372, 0.9296),
            (0.6868, 0.8177),
            (0.3473, 0.6314),
            (0.5218, 0.9758),
            (0.2464, 0.4715),
            (0.8344, 0.9864),
            (0.4374, 0.5627),
            (0.1588, 0.3730),
            (0.7879, 0.9459),
            (0.2298, 0.5207),
            (0.7036, 0.9353),
        ),
        _system(
            "SPLADE-v3",
            ("splade-v3",),
            (0.7299, 0.1409),
            (0.3629, 0.2976),
            (0.5842, 0.9438),
            (0.6884, 0.8215),
            (0.3798, 0.6671),
            (0.4845, 0.9794),
            (0.3086, 0.5128),
            (0.8141, 0.9858),
            (0.4476, 0.5695),
            (0.1567, 0.3673),
            (0.8015, 0.9550),
            (0.2625, 0.5737),
            (0.7140, 0.9360),
        ),
    )
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
    return next((system for system in PUBLISHED_SYSTEMS.values() if name in system.models), None)
