"""Search one BEIR data set here and in other systems, and print what each finds, costs and takes.

Usage: python scripts/compare_systems.py INDEX BEIR_FOLDER DATASET WORK_FOLDER

INDEX is what `splade.beir_eval` has built; vectors are exported to WORK_FOLDER. Times are those of one thread, query by
query, without encoding, with 100 documents each; Anserini's are of the whole command, start of Java included. A system
that is not installed has no row.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import splade
from splade.config.command import compose_experiment
from splade.datasets.beir import open_beir
from splade.datasets.runs import Run, read_run
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.metrics import evaluate_run
from splade.reports.tables import Column, Table
from splade.tasks.export import export
from splade.vectors import SparseVectors

TOP_K = 100
Found = tuple[Run, float, int, float]  # run, ms per query, bytes, seconds of building


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def timed(search: Callable[[str], dict[str, float]], query_ids: list[str]) -> tuple[Run, float]:
    """Return the run of a search by query id, after one to warm up, and milliseconds per query."""
    search(query_ids[0])
    start = time.perf_counter()
    run = {query_id: search(query_id) for query_id in query_ids}
    return run, 1e3 * (time.perf_counter() - start) / len(query_ids)


def queries_of(path: Path) -> dict[str, dict[str, float]]:
    """Return the queries of Seismic's JSON lines."""
    return {(line := json.loads(text))["id"]: line["vector"] for text in path.read_text("utf-8").splitlines()}


def anserini(folder: Path) -> Found:
    """Search with the jar that pyserini 0.22.1 brings."""
    found = importlib.util.find_spec("pyserini")
    jar = next(Path(found.submodule_search_locations[0]).glob("resources/jars/*fatjar.jar"))
    java, index, run = ["java", "-Xmx2g", "-cp", str(jar)], folder / "index", folder / "run.txt"
    shutil.rmtree(index, ignore_errors=True)
    common = ["-index", str(index), "-impact", "-pretokenized"]
    kinds = ["-collection", "JsonVectorCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    places = ["-input", str(folder / "anserini_collection")]
    start = time.perf_counter()
    program = [*java, "io.anserini.index.IndexCollection"]
    subprocess.run([*program, *kinds, *places, *common], check=True, capture_output=True)
    built = time.perf_counter() - start
    topics = ["-topics", str(folder / "queries.tsv"), "-topicreader", "TsvString", "-output", str(run)]
    start = time.perf_counter()
    program = [*java, "io.anserini.search.SearchCollection"]
    subprocess.run([*program, *topics, *common, "-hits", str(TOP_K)], check=True, capture_output=True)
    found_run = read_run(run)
    return found_run, 1e3 * (time.perf_counter() - start) / len(found_run), size(index), built


def pisa(folder: Path) -> Found:
    """Search with PISA's library: block_simdbp, fixed blocks of 40, block_max_wand."""
    import pandas as pd
    import pyterrier_pisa

    start = time.perf_counter()
    for names, lexicon in (("terms", "termlex"), ("documents", "doclex")):
        pyterrier_pisa._pisathon.build_binlex(str(folder / f"fwd.{names}"), str(folder / f"fwd.{lexicon}"))
    for old in folder.glob("quantized*"):
        old.unlink()
    index = pyterrier_pisa.PisaIndex(str(folder), stemmer="none", stops="none")
    settings = {"num_results": TOP_K, "stops": "none", "query_algorithm": "block_max_wand", "toks_scale": 1}
    search = pyterrier_pisa.PisaRetrieve(index, "quantized", threads=1, block_size=40, **settings)
    built = time.perf_counter() - start
    terms, rows = (folder / "fwd.terms").read_text("utf-8").split("\n"), []
    for line in (folder / "queries.pisa").read_text("utf-8").splitlines():
        query_id, _, numbers = line.partition(":")
        rows.append({"qid": query_id, "query_toks": dict(Counter(terms[int(number)] for number in numbers.split()))})
    frame = pd.DataFrame(rows)
    search(frame[:1])
    start = time.perf_counter()
    hits = search(frame)
    ms = 1e3 * (time.perf_counter() - start) / len(frame)
    run: Run = {}
    for query_id, doc_id, score in zip(hits.qid, hits.docno, hits.score, strict=True):
        run.setdefault(query_id, {})[doc_id] = float(score)
    return run, ms, sum(map(size, folder.glob("quantized*"))), built


def seismic(folder: Path) -> Found:
    """Search with Seismic, approximately."""
    import seismic as library

    start = time.perf_counter()
    index = library.SeismicIndex.build(str(folder / "documents.jsonl"), num_threads=1)
    built = time.perf_counter() - start
    index.save(str(folder / "index"))
    queries, kind = queries_of(folder / "queries.jsonl"), library.get_seismic_string()

    def search(query_id: str) -> dict[str, float]:
        names, weights = np.array(list(queries[query_id]), kind), np.array(list(queries[query_id].values()), np.float32)
        hits = index.search(query_id, names, weights, TOP_K, 10, 0.7)
        return {doc_id: float(score) for _, score, doc_id in hits}

    run, ms = timed(search, list(queries))
    return run, ms, sum(map(size, folder.glob("index*"))), built


def qdrant(folder: Path) -> Found:
    """Search with the local mode of Qdrant's client, which is NumPy, not Qdrant's server."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    start = time.perf_counter()
    client.create_collection("c", vectors_config={}, sparse_vectors_config={"splade": models.SparseVectorParams()})
    for part in sorted(folder.glob("points.*.json")):
        points = json.loads(part.read_text("utf-8"))["points"]
        client.upsert("c", [models.PointStruct(**point) for point in points])
    built = time.perf_counter() - start
    lines = map(json.loads, (folder / "queries.jsonl").read_text("utf-8").splitlines())
    queries = {line["id"]: models.SparseVector(**line["body"]["query"]) for line in lines}

    def search(query_id: str) -> dict[str, float]:
        hits = client.query_points("c", query=queries[query_id], using="splade", limit=TOP_K).points
        return {hit.payload["doc_id"]: hit.score for hit in hits}

    run, ms = timed(search, list(queries))
    return run, ms, sum(map(size, folder.glob("points.*.json"))), built


def milvus(folder: Path) -> Found:
    """Search with Milvus Lite, filled with Qdrant's points."""
    from pymilvus import DataType, MilvusClient

    place = folder / "milvus.db"
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    client = MilvusClient(str(place))
    schema = client.create_schema(auto_id=False)
    schema.add_field("doc_id", DataType.VARCHAR, is_primary=True, max_length=512)
    schema.add_field("vector", DataType.SPARSE_FLOAT_VECTOR)
    params = client.prepare_index_params()
    params.add_index("vector", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    start = time.perf_counter()
    client.create_collection("c", schema=schema, index_params=params)
    for part in sorted(folder.glob("points.*.json")):
        points = json.loads(part.read_text("utf-8"))["points"]
        rows = [{"doc_id": point["payload"]["doc_id"], "vector": bag(point["vector"]["splade"])} for point in points]
        for first in range(0, len(rows), 500):
            client.insert("c", rows[first : first + 500])
    built = time.perf_counter() - start
    lines = map(json.loads, (folder / "queries.jsonl").read_text("utf-8").splitlines())
    queries = {line["id"]: bag(line["body"]["query"]) for line in lines}

    def search(query_id: str) -> dict[str, float]:
        hits = client.search("c", [queries[query_id]], anns_field="vector", limit=TOP_K)[0]
        return {hit["doc_id"]: hit["distance"] for hit in hits}

    run, ms = timed(search, list(queries))
    return run, ms, size(place), built


def bag(vector: dict[str, list]) -> dict[int, float]:
    """Return term to weight."""
    return dict(zip(vector["indices"], vector["values"], strict=True))


def ours(index_dir: Path, folder: Path) -> Found:
    """Search here, with the queries that Qdrant gets; the index was built before."""
    index = splade.Index.open(index_dir).postings
    lines = list(map(json.loads, (folder / "queries.jsonl").read_text("utf-8").splitlines()))
    rows = [(line["body"]["query"]["indices"], line["body"]["query"]["values"]) for line in lines]
    queries = {
        line["id"]: SparseVectors.from_rows([row], index.vocab_size) for line, row in zip(lines, rows, strict=True)
    }

    def search(query_id: str) -> dict[str, float]:
        doc_idx, scores = index.search(queries[query_id], TOP_K).row(0)
        return dict(zip(index.doc_ids(doc_idx), scores.tolist(), strict=True))

    run, ms = timed(search, list(queries))
    return run, ms, index.n_bytes, float("nan")


def systems(index_dir: Path, work: Path) -> Iterator[tuple[str, Found]]:
    """Yield each system that is installed with what it finds; the exact search here first."""
    yield "here, exact", ours(index_dir, work / "qdrant")
    others = {"Anserini": anserini, "PISA": pisa, "Seismic": seismic, "Milvus Lite": milvus, "Qdrant, local": qdrant}
    folders = {"Milvus Lite": "qdrant", "Qdrant, local": "qdrant"}
    for name, search in others.items():
        try:
            yield name, search(work / folders.get(name, name.lower()))
        except (ImportError, AttributeError, StopIteration, FileNotFoundError) as error:
            sys.stderr.write(f"{name} is not installed: {error}\n")


def main() -> None:
    """Export, search everywhere, print the table."""
    index_dir, beir, name, work = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    dataset = open_beir(name, beir)[0]
    work.mkdir(parents=True, exist_ok=True)
    (work / "queries.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in dataset.queries.items()), "utf-8")
    given = [f"config.index_dir={index_dir}", f"config.out_dir={work}", f"data.Q_COLLECTION_PATH=[{work}/queries.tsv]"]
    for target in ("anserini", "pisa", "seismic", "qdrant"):
        export(compose_experiment("own_data", [*given, "config.retrieval_name=[queries]", f"target={target}"]))
    exact: Run = {}
    rows = []
    for system, (run, ms, n_bytes, seconds) in systems(index_dir, work):
        exact = exact or run
        ndcg = evaluate_run(drop_identical_ids(run), dataset.qrels or {}, ["nDCG@10"]).means["nDCG@10"]
        top = [(set(list(exact[one])[:10]), list(run.get(one, {}))[:10]) for one in exact]
        overlap = float(np.mean([len(best.intersection(found)) / max(1, len(best)) for best, found in top]))
        rows.append((system, ndcg, overlap, ms, n_bytes / 1e6, None if np.isnan(seconds) else seconds))
    columns = (Column("system"), Column("nDCG@10"), Column("overlap@10", 3), Column("ms /query", 2))
    columns += (Column("index MB", 1), Column("build s", 1))
    sys.stdout.write(Table(f"{name}, {TOP_K} documents a query", columns, tuple(rows)).to_markdown() + "\n")


if __name__ == "__main__":
    main()
