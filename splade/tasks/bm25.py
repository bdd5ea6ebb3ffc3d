"""Task: BM25 through the same runs, metrics and tables as a learned model."""

import time
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.config.sweep import folder_of, swept_values
from splade.errors import ConfigError
from splade.evaluation.checks import Finding, raise_errors
from splade.reports.summaries import warning_block
from splade.reports.tables import Column, Table
from splade.storage.atomic import read_json, write_json
from splade.tasks.evaluate import EvaluationResult, check_datasets, evaluate

SYSTEM = "BM25"
# Keys that change BM25's results; all others of a sweep leave them alone.
OWN_KEYS = ("config.top_k", "beir.split")


@dataclass(frozen=True)
class Bm25Result:
    """What BM25 retrieved.

    Attributes:
        lines: effectiveness and cost per data set.
        comparisons: BM25 and the model's runs in the same `out_dir`, side by side.
        warnings: what looks wrong.
        out_dir: the folder given as `config.out_dir`.
        on_beir: whether it was a BEIR data set.
    """

    lines: tuple[str, ...]
    comparisons: tuple[str, ...]
    warnings: tuple[Finding, ...]
    out_dir: Path
    on_beir: bool

    def summary(self) -> str:
        """Return effectiveness, cost, comparisons, then the warnings."""
        blocks = [block for comparison in self.comparisons for block in ("", comparison)]
        return "\n".join([*self.lines, *blocks, *warning_block(self.warnings)])


def bm25(experiment: Experiment) -> Bm25Result:
    """Retrieve with BM25 and evaluate, on a BEIR data set or on one's own data.

    With beir.dataset: that data set, results in out_dir/bm25/beir/<dataset>. Without: data.COLLECTION_PATH is searched
    for every query of data.Q_COLLECTION_PATH, runs in out_dir/bm25/<name>; where out_dir/<name> holds a run of
    splade.retrieve, both are shown in one table with a significance test.
    """
    from splade.retrieval.bm25 import library_version

    library_version()  # a missing library shows before anything is read
    return _on_beir(experiment) if experiment.beir.dataset is not None else _on_own_data(experiment)


def bm25_folder(out_dir: Path) -> Path:
    """Return where BM25's results go: `out_dir/bm25`, with the settings that a sweep varies."""
    swept = {key: value for key, value in swept_values().items() if key.startswith("bm25.") or key in OWN_KEYS}
    suffix = folder_of(swept)
    return out_dir / (f"bm25__{suffix}" if suffix else "bm25")


def evaluate_bm25_on(experiment: Experiment, dataset: str, data: "BeirDataset", root: Path) -> "DatasetResult":  # type: ignore[name-defined] # noqa: F821
    """Search and evaluate a BEIR data set with BM25, or return the result that is already there.

    Args:
        experiment: for `bm25` and `config.top_k`.
        dataset: its name.
        data: its files.
        root: the results are in `root/beir/<dataset>`.
    """
    from splade.evaluation.checks import check_qrels_against_collection
    from splade.pipeline.beir_results import dataset_identity, finished_result, judge_and_store
    from splade.pipeline.indexing import source_digest
    from splade.retrieval.bm25 import library_version

    folder, top_k = root / "beir" / dataset, experiment.config.top_k
    swept = {key: value for key, value in swept_values().items() if key.startswith("bm25.")}
    system = ", ".join([SYSTEM, *(f"{key.removeprefix('bm25.')}={value}" for key, value in swept.items())])
    settings = {"bm25": asdict(experiment.bm25), "bm25s": library_version(), "top_k": top_k}
    settings |= dataset_identity(data, source_digest(data.collection))
    finished = finished_result(system, dataset, data.split, folder, settings)
    if finished is not None:
        return finished
    documents = list(data.collection)
    warnings = raise_errors(check_qrels_against_collection(data.qrels, {doc_id for doc_id, _ in documents}))
    index = build_bm25(experiment, documents)
    stats = search_and_write(index, data.queries, folder, top_k, f"bm25-{dataset.replace('/', '-')}")
    return judge_and_store(system, dataset, data, folder, settings, stats, warnings)


def build_bm25(experiment: Experiment, documents: Iterable[tuple[str, str]]) -> "Bm25":  # type: ignore[name-defined] # noqa: F821
    """Index documents with the settings of the section `bm25`."""
    from splade.retrieval.bm25 import Bm25, Bm25Settings

    if experiment.bm25.b > 1:
        raise ConfigError(f"bm25.b={experiment.bm25.b}: must be between 0 and 1")
    return Bm25.build(documents, Bm25Settings(**asdict(experiment.bm25)))


def search_and_write(
    index: "Bm25",  # type: ignore[name-defined] # noqa: F821
    queries: Mapping[str, str],
    folder: Path,
    top_k: int,
    tag: str,
) -> dict[str, Any]:
    """Write `run.json`, `run.trec` and `q_stats.json`; return the costs, under the names that splade.retrieve uses."""
    from splade.datasets.runs import write_run_json, write_run_trec

    index.search(dict(list(queries.items())[:1]), top_k)  # first allocations are in no measured query
    start = time.perf_counter()
    run = index.search(queries, top_k)
    seconds = time.perf_counter() - start
    write_run_json(folder / "run.json", run)
    write_run_trec(folder / "run.trec", run, tag)
    costs: dict[str, Any] = {"model": "bm25", "n_queries": len(queries), "top_k": top_k, **index.costs(queries)}
    costs |= {"search_ms_per_query": 1e3 * seconds / len(queries), "n_threads": 1}
    write_json(folder / "q_stats.json", costs)
    return costs


def _on_beir(experiment: Experiment) -> Bm25Result:
    require(experiment, "beir.dataset", "beir.dataset_path", "config.out_dir")
    from splade.pipeline.beir_results import open_datasets, store_average
    from splade.reports.beir_report import write_beir_table

    beir, out_dir = experiment.beir, Path(str(experiment.config.out_dir))
    datasets = open_datasets(str(beir.dataset), Path(str(beir.dataset_path)), beir.split or "test", beir.url)
    root = bm25_folder(out_dir)
    results = [evaluate_bm25_on(experiment, name, data, root) for name, data in datasets]
    if len(results) > 1:
        store_average(results, root / "beir" / str(beir.dataset))
    save_record(experiment, root, "bm25")
    write_beir_table(out_dir, beir.reference)
    lines = tuple(line for result in results for line in result.lines())
    return Bm25Result(lines, (), tuple(finding for result in results for finding in result.warnings), out_dir, True)


def _on_own_data(experiment: Experiment) -> Bm25Result:
    keys = ("config.out_dir", "data.COLLECTION_PATH", "data.Q_COLLECTION_PATH", "config.retrieval_name")
    require(experiment, *keys)
    check_datasets(experiment)
    from splade.datasets.collections import open_collection, open_queries

    out_dir = Path(str(experiment.config.out_dir))
    root, top_k = bm25_folder(out_dir), experiment.config.top_k
    queries_of = [dict(open_queries(path)) for path in experiment.data.Q_COLLECTION_PATH]
    index = build_bm25(experiment, open_collection(str(experiment.data.COLLECTION_PATH)))
    lines = []
    for name, queries in zip(experiment.config.retrieval_name, queries_of, strict=True):
        costs = search_and_write(index, queries, root / name, top_k, f"bm25-{name}")
        lines.append(
            f"{name}, {SYSTEM}: {costs['n_queries']} queries, {costs['L0_q']:.1f} words each, {costs['L0_d']:.1f} per "
            f"document, flops {costs['flops']:.3f}, {costs['search_ms_per_query']:.2f} ms search per query (1 thread)"
        )
    save_record(experiment, root, "bm25")
    evaluation: EvaluationResult | None = None
    comparisons: list[str] = []
    if any(path is not None for path in experiment.data.EVAL_QREL_PATH):
        its_own = deepcopy(experiment)
        its_own.config.out_dir = str(root)
        evaluation = evaluate(its_own)
        lines += evaluation.lines()
        comparisons = [
            _compare_with_model(experiment, i, root / name, out_dir / name)
            for i, name in enumerate(experiment.config.retrieval_name)
            if experiment.data.EVAL_QREL_PATH[i] is not None and (out_dir / name / "run.json").is_file()
        ]
    warnings = evaluation.warnings if evaluation is not None else ()
    return Bm25Result(tuple(lines), tuple(comparisons), warnings, out_dir, False)


def _compare_with_model(experiment: Experiment, i: int, bm25_dir: Path, model_dir: Path) -> str:
    """Return effectiveness, differences and costs of BM25 and of the model's run for one data set."""
    from splade.datasets.qrels import read_qrels
    from splade.datasets.runs import read_run
    from splade.evaluation.comparison import compare_runs
    from splade.reports.comparison_report import differences_table, means_table

    folders = {SYSTEM: bm25_dir, "splade": model_dir}
    runs = {system: read_run(folder / "run.json") for system, folder in folders.items()}
    qrels = read_qrels(str(experiment.data.EVAL_QREL_PATH[i]))
    compared = compare_runs(runs, qrels, experiment.config.eval_metric[i], baseline=SYSTEM)
    tables = [means_table(compared), differences_table(compared), _costs_table(folders)]
    return "\n\n".join([experiment.config.retrieval_name[i], *(table.to_text() for table in tables)])


def _costs_table(folders: Mapping[str, Path]) -> Table:
    columns = (
        Column("system"),
        Column("terms /query", digits=1),
        Column("FLOPS", digits=2),
        Column("search ms /query", digits=2),
        Column("threads"),
    )
    rows = []
    for system, folder in folders.items():
        stats = read_json(folder / "q_stats.json") if (folder / "q_stats.json").is_file() else {}
        rows.append((system, *(stats.get(key) for key in ("L0_q", "flops", "search_ms_per_query", "n_threads"))))
    return Table("Costs (measured here)", columns, tuple(rows))


def after_sweep(results: list[Bm25Result]) -> str:
    """Return the table that ends a sweep."""
    from splade.reports.beir_report import write_beir_tables

    return write_beir_tables([result.out_dir for result in results if result.on_beir])
