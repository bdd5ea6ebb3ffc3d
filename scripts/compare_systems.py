"""Search one BEIR data set here and in other systems, and print what each finds, costs and takes.

Usage: python scripts/compare_systems.py INDEX BEIR_FOLDER DATASET WORK_FOLDER [PAGE]

INDEX is what `splade.beir_eval` has built; vectors are exported to WORK_FOLDER. Times are those of one thread, query by
query, without encoding, with 100 documents each, the best of up to three passes. Building starts from the exported
files. What a system has found is kept in WORK_FOLDER: the same command goes on with those that are missing, such as one
that was not installed. With PAGE, the table takes the place of the one in that page.
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from itertools import islice
from pathlib import Path

import numpy as np
from evaluate_pisa import PASSES, PisaFolder

from splade.config.command import compose_experiment
from splade.datasets.beir import open_beir
from splade.datasets.runs import Run, read_run
from splade.encoding.sparse_model import SparseModel
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.metrics import evaluate_run
from splade.interop.upload import upload_milvus, upload_qdrant
from splade.interop.vector_files import VectorFiles
from splade.inverted_index import IndexBuilder, InvertedIndex, open_index
from splade.reports.tables import Column, Table
from splade.storage.atomic import read_json_object, write_json, write_text
from splade.tasks.export import export
from splade.tasks.model_loading import load_model_of_index
from splade.vectors import SparseVectors

TOP_K = 100
MOST_SECONDS = 5.0
EIGHT_BITS_FACTOR = 50  # BMP holds impacts up to 255
BEGIN, END = "<!-- systems: made by scripts/compare_systems.py -->", "<!-- /systems -->"


@dataclass(frozen=True)
class Found:
    """What a system has found, and what it took.

    Attributes:
        run: of all queries.
        ms: per query.
        n_bytes: of its index.
        seconds: of building it.
        load: of the machine afterwards, over a minute.
    """

    run: Run
    ms: float
    n_bytes: int
    seconds: float
    load: float = 0.0


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def timed(search: Callable[[str], dict[str, float]], query_ids: list[str]) -> tuple[Run, float]:
    """Return the run of a search by query id, and milliseconds per query of the fastest pass, of several if fast."""
    search(query_ids[0])  # compiling is in no measured pass
    times: list[float] = []
    while len(times) < PASSES and sum(times) < MOST_SECONDS:
        start = time.perf_counter()
        run = {query_id: search(query_id) for query_id in query_ids}
        times.append(time.perf_counter() - start)
    return run, 1e3 * min(times) / len(query_ids)


def entries_of(path: Path) -> dict[str, dict]:
    """Return the lines of an export of queries by their ids."""
    return {(line := json.loads(text))["id"]: line for text in path.read_text("utf-8").splitlines()}


def ours(folder: Path, model: SparseModel) -> Found:
    """Search here, exactly; built of the lines that Seismic gets, searched for the queries that Qdrant gets."""
    shutil.rmtree(folder / "here", ignore_errors=True)
    start = time.perf_counter()
    builder = IndexBuilder(folder / "here", model.vocab_size)
    for ids, vectors in VectorFiles(folder / "seismic" / "documents.jsonl", model.tokens):
        builder.add(ids, vectors)
    builder.finish()
    seconds = time.perf_counter() - start
    index = InvertedIndex.open(folder / "here")
    queries = {}
    for query_id, line in entries_of(folder / "qdrant" / "queries.jsonl").items():
        row = (line["body"]["query"]["indices"], line["body"]["query"]["values"])
        queries[query_id] = SparseVectors.from_rows([row], index.vocab_size)

    def search(query_id: str) -> dict[str, float]:
        doc_idx, scores = index.search(queries[query_id], TOP_K).row(0)
        return dict(zip(index.doc_ids(doc_idx), scores.tolist(), strict=True))

    run, ms = timed(search, list(queries))
    return Found(run, ms, index.n_bytes, seconds)


def anserini(folder: Path, model: SparseModel) -> Found:
    """Search with the jar that pyserini 0.22.1 brings; the time is that of all queries without that of one."""
    found = importlib.util.find_spec("pyserini")
    if found is None or not found.submodule_search_locations or shutil.which("java") is None:
        raise ImportError("Java, and pip install --no-deps pyserini==0.22.1")
    jar = next(Path(found.submodule_search_locations[0]).glob("resources/jars/*fatjar.jar"))
    folder /= "anserini"
    java, index, run, one = ["java", "-Xmx2g", "-cp", str(jar)], folder / "index", folder / "run.txt", folder / "1.tsv"
    shutil.rmtree(index, ignore_errors=True)
    common = ["-index", str(index), "-impact", "-pretokenized"]

    def seconds(program: str, *options: str) -> float:
        start = time.perf_counter()
        subprocess.run([*java, f"io.anserini.{program}", *options, *common], check=True, capture_output=True)
        return time.perf_counter() - start

    kinds = ["-collection", "JsonVectorCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    built = seconds("index.IndexCollection", *kinds, "-input", str(folder / "anserini_collection"))
    with open(folder / "queries.tsv", encoding="utf-8") as lines:
        write_text(one, "".join(islice(lines, 1)))
    searching = ["-topicreader", "TsvString", "-hits", str(TOP_K), "-output", str(run)]
    start_up = seconds("search.SearchCollection", *searching, "-topics", str(one))
    whole = seconds("search.SearchCollection", *searching, "-topics", str(folder / "queries.tsv"))
    found_run = read_run(run)
    return Found(found_run, 1e3 * (whole - start_up) / max(1, len(found_run) - 1), size(index), built)


def pisa(folder: Path, model: SparseModel) -> Found:
    """Search with PISA's library: block_simdbp, fixed blocks of 40, block_max_wand."""
    made = PisaFolder(folder / "pisa")
    run, ms = made.run(folder / "pisa" / "queries.pisa", TOP_K)
    return Found(run, ms, made.n_bytes, made.seconds)


def bmp(folder: Path, model: SparseModel) -> Found:
    """Search with BMP, exactly over impacts of 8 bits."""
    import bmp as library

    place = folder / "bmp"
    start = time.perf_counter()
    documents = str(folder / "ciff" / "documents.ciff")
    library.ciff2bmp(ciff_file=documents, output=str(place), bsize=32, compress_range=False)
    seconds = time.perf_counter() - start
    searcher = library.Searcher(str(place))
    queries = {key: line["vector"] for key, line in entries_of(folder / "seismic" / "queries.jsonl").items()}

    def search(query_id: str) -> dict[str, float]:
        doc_ids, scores = searcher.search(queries[query_id], k=TOP_K, alpha=1.0, beta=1.0)
        return dict(zip(doc_ids, map(float, scores), strict=True))

    run, ms = timed(search, list(queries))
    return Found(run, ms, size(place), seconds)


def seismic(folder: Path, model: SparseModel) -> Found:
    """Search with Seismic, approximately."""
    import seismic as library

    folder /= "seismic"
    start = time.perf_counter()
    index = library.SeismicIndex.build(str(folder / "documents.jsonl"), num_threads=1)
    seconds = time.perf_counter() - start
    index.save(str(folder / "index"))
    kind, queries = library.get_seismic_string(), {}
    for query_id, line in entries_of(folder / "queries.jsonl").items():
        names, weights = list(line["vector"]), list(line["vector"].values())
        queries[query_id] = np.array(names).astype(kind), np.array(weights, np.float32)

    def search(query_id: str) -> dict[str, float]:
        hits = index.search(query_id, *queries[query_id], TOP_K, 10, 0.7)
        return {doc_id: float(score) for _, score, doc_id in hits}

    run, ms = timed(search, list(queries))
    return Found(run, ms, sum(map(size, folder.glob("index*"))), seconds)


def milvus(folder: Path, model: SparseModel) -> Found:
    """Search with Milvus Lite, Milvus's embedded form."""
    from pymilvus import MilvusClient

    place = folder / "milvus" / "milvus.db"
    shutil.rmtree(place, ignore_errors=True)
    start = time.perf_counter()
    upload_milvus(folder / "milvus", str(place), "splade")
    seconds = time.perf_counter() - start
    client = MilvusClient(str(place))
    client.load_collection("splade")
    queries = {}
    for query_id, line in entries_of(folder / "milvus" / "queries.jsonl").items():
        queries[query_id] = {int(term): weight for term, weight in line["vector"].items()}

    def search(query_id: str) -> dict[str, float]:
        hits = client.search("splade", [queries[query_id]], anns_field="vector", limit=TOP_K)[0]
        return {hit["doc_id"]: hit["distance"] for hit in hits}

    run, ms = timed(search, list(queries))
    client.close()
    return Found(run, ms, size(place), seconds)


def qdrant(folder: Path, model: SparseModel) -> Found:
    """Search with the local mode of Qdrant's client, which is NumPy, not Qdrant's server."""
    from qdrant_client import QdrantClient, models

    place = folder / "qdrant" / "local"
    shutil.rmtree(place, ignore_errors=True)
    start = time.perf_counter()
    upload_qdrant(folder / "qdrant", str(place), "splade")
    seconds = time.perf_counter() - start
    client, queries = QdrantClient(path=str(place)), {}
    for query_id, line in entries_of(folder / "qdrant" / "queries.jsonl").items():
        queries[query_id] = models.SparseVector(**line["body"]["query"])

    def search(query_id: str) -> dict[str, float]:
        hits = client.query_points("splade", query=queries[query_id], using="splade", limit=TOP_K).points
        return {hit.payload["doc_id"]: hit.score for hit in hits}

    run, ms = timed(search, list(queries))
    client.close()
    return Found(run, ms, size(place), seconds)


SYSTEMS = {
    "here, exact": ours,
    "Anserini 0.22.1 (Lucene)": anserini,
    "PISA": pisa,
    "BMP": bmp,
    "Seismic (approximate)": seismic,
    "Milvus Lite": milvus,
    "Qdrant's client (NumPy)": qdrant,
}


def export_all(index_dir: Path, queries: Path, work: Path, model: SparseModel) -> None:
    """Write the vectors for all systems into a folder, each target once.

    Raises:
        SystemExit: the folder holds those of another index.
    """
    seal = {"index": json.dumps(open_index(index_dir).file.seal)}
    if (work / "index.json").is_file() and read_json_object(work / "index.json") != seal:
        raise SystemExit(f"{work} has the vectors of another index: give another folder")
    write_json(work / "index.json", seal)
    given = [f"config.index_dir={index_dir}", f"config.out_dir={work}", f"data.Q_COLLECTION_PATH=[{queries}]"]
    for target in ("anserini", "pisa", "ciff", "seismic", "milvus", "qdrant"):
        if not (work / f"{target}.done").is_file():
            factor = f"quantization_factor_document={EIGHT_BITS_FACTOR if target == 'ciff' else 100}"
            export(
                compose_experiment("own_data", [*given, "config.retrieval_name=[queries]", f"target={target}", factor])
            )
            write_text(work / f"{target}.done", "")


def found_by(name: str, work: Path, model: SparseModel) -> Found | None:
    """Return what a system has found, now or before; None: it is not installed."""
    kept = work / f"found.{SYSTEMS[name].__name__}.json"
    if kept.is_file():
        return Found(**read_json_object(kept))
    try:
        found = SYSTEMS[name](work, model)
    except ImportError as error:
        sys.stderr.write(f"{name} is not installed: {error}\n")
        return None
    write_json(kept, asdict(found) | {"load": os.getloadavg()[0]}, indent=None)
    sys.stderr.write(f"{name}: {found.ms:.2f} ms per query\n")
    return found_by(name, work, model)


def main() -> None:
    """Export, search everywhere, print the table."""
    index_dir, beir, name, work = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    dataset = open_beir(name, beir)[0]
    write_text(work / "queries.tsv", "".join(f"{key}\t{text}\n" for key, text in dataset.queries.items()))
    model, _ = load_model_of_index(compose_experiment("own_data", [f"config.index_dir={index_dir}"]))
    export_all(index_dir, work / "queries.tsv", work, model)
    results = {system: found for system in SYSTEMS if (found := found_by(system, work, model)) is not None}
    exact, rows = next(iter(results.values())).run, []
    for system, found in results.items():
        ndcg = evaluate_run(drop_identical_ids(found.run), dataset.qrels or {}, ["nDCG@10"]).means["nDCG@10"]
        tops = [(best(exact[query_id]), best(found.run.get(query_id, {}))) for query_id in exact]
        overlap = float(np.mean([len(wanted & there) / len(wanted) for wanted, there in tops if wanted]))
        rows.append((system, ndcg, overlap, found.ms, found.n_bytes / 1e6, found.seconds, found.load))
    columns = (Column("system"), Column("nDCG@10"), Column("overlap@10", 3), Column("ms /query", 2))
    columns += (Column("index MB", 1), Column("build s", 1), Column("load", 1))
    table = Table(f"{name}, {TOP_K} documents a query", columns, tuple(rows))
    sys.stdout.write(table.to_markdown() + "\n")
    if len(sys.argv) > 5:
        into_page(Path(sys.argv[5]), table, f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores")


def best(ranking: dict[str, float]) -> set[str]:
    """Return the best 10 documents."""
    return set(sorted(ranking, key=lambda doc_id: -ranking[doc_id])[:10])


def into_page(page: Path, table: Table, where: str) -> None:
    """Put the table between its marks in a page."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{page}: no marks {BEGIN} and {END}")
    rows = table.to_markdown().partition("\n\n")[2].strip()
    write_text(page, f"{before}{BEGIN}\n{where}:\n\n{rows}\n{END}{after}")


if __name__ == "__main__":
    main()
