"""Task: index, retrieve and evaluate a BEIR data set; sweeps over data sets, models and knobs; BM25 beside them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.config.sweep import MODEL_KEY, folder_of, swept_values
from splade.errors import ConfigError
from splade.evaluation.checks import Finding
from splade.reports.beir_report import write_beir_table, write_beir_tables
from splade.reports.comparison_report import write_comparison
from splade.reports.summaries import warning_block
from splade.tasks.bm25 import bm25_folder, evaluate_bm25_on
from splade.tasks.index import write_index_reports
from splade.tasks.retrieve import write_run

METRICS = ("nDCG@10", "R@100")
DEEPEST_CUT = 100
# Keys that have folders or files of their own, or change nothing in the model's results.
NOT_IN_RESULTS = ("beir.dataset", "beir.baseline", "beir.keep_vectors", "beir.reference", "beir.url")
FOLDERS = ("config.index_dir", "config.out_dir")
# Keys that change what is searched for or how, but not the index: jobs that differ only in them share one.
NOT_IN_INDEX = (
    *(*NOT_IN_RESULTS, "beir.split"),
    *("config.top_k", "config.threshold", "config.search_effort", "config.n_threads"),
    *("init_dict.model_type_or_dir_q", "init_dict.top_q"),
)


@dataclass(frozen=True)
class BeirResult:
    """Metrics and costs of a model on a data set, or on all sub-forums of one.

    Attributes:
        results: one per data set (`DatasetResult`).
        average: mean metrics, of several results.
        comparison: with `beir.baseline`: the table of all systems, and the significance of the differences from BM25.
        warnings: what looks wrong.
        out_dir: the folder given as `config.out_dir`.
    """

    results: tuple[Any, ...]
    average: dict[str, float] | None
    comparison: str | None
    warnings: tuple[Finding, ...]
    out_dir: Path

    def summary(self) -> str:
        """Return effectiveness and cost, the comparison with BM25, then the warnings."""
        lines = [line for result in self.results for line in result.lines()]
        if self.average is not None:
            values = "  ".join(f"{name} {value:.4f}" for name, value in self.average.items())
            lines.append(f"average of {len(self.results)}: {values}")
        comparison = ["", self.comparison] if self.comparison is not None else []
        return "\n".join([*lines, *comparison, *warning_block(self.warnings)])


def beir_eval(experiment: Experiment) -> BeirResult:
    """Index, search and evaluate the BEIR data set beir.dataset.

    It is taken from the folder beir.dataset_path/<dataset> when that is there, else downloaded to it; `cqadupstack`
    stands for its twelve sub-forums. With +beir.baseline=true, BM25 is evaluated beside the model and the difference
    tested. In a sweep (--multirun) each model and setting gets a folder of its own in config.out_dir, what is finished
    is not done again, and one table ends it.
    """
    require(experiment, "beir.dataset", "beir.dataset_path", "config.index_dir", "config.out_dir")
    from splade.models.load import load_for_inference
    from splade.pipeline.beir_results import open_datasets, store_average
    from splade.pipeline.checks import check_max_length, check_settings

    run, beir = experiment.config, experiment.beir
    if run.top_k < DEEPEST_CUT:
        raise ConfigError(
            f"config.top_k={run.top_k} documents are retrieved, but Recall@100 looks at the first {DEEPEST_CUT}: raise "
            "config.top_k"
        )
    warnings = check_settings(experiment)
    datasets = open_datasets(str(beir.dataset), Path(str(beir.dataset_path)), beir.split or "test", beir.url)
    out_dir, folders = Path(str(run.out_dir)), job_folders(experiment, swept_values())
    model = load_for_inference(experiment)
    warnings += check_max_length(model, run.max_length)
    results = [_evaluate(experiment, model, name, data, folders, warnings) for name, data in datasets]
    average = store_average(results, folders.out / "beir" / str(beir.dataset)) if len(results) > 1 else None
    save_record(experiment, folders.out, "beir_eval")
    comparison = None
    if beir.baseline:
        baselines = [evaluate_bm25_on(experiment, name, data, bm25_folder(out_dir)) for name, data in datasets]
        tested = [
            _compare(baseline, result, data)
            for baseline, result, (_, data) in zip(baselines, results, datasets, strict=True)
        ]
        comparison = "\n\n".join(tested)
    table = write_beir_table(out_dir, beir.reference)
    if comparison is not None and not swept_values():
        comparison = f"{table.summary()}\n\n{comparison}"
    unique = {finding.message: finding for result in results for finding in result.warnings}
    return BeirResult(tuple(results), average, comparison, tuple(unique.values()), out_dir)


@dataclass(frozen=True)
class JobFolders:
    """Where one job of a sweep works.

    Attributes:
        index: the index is in `index/beir/<dataset>`.
        out: results are in `out/beir/<dataset>`.
        settings: swept keys and values that set this job apart from others of the same model.
    """

    index: Path
    out: Path
    settings: dict[str, str]


def job_folders(experiment: Experiment, swept: Mapping[str, str]) -> JobFolders:
    """Return the folders of a job; those of the configuration itself unless models or knobs are swept.

    Args:
        experiment: for `config.index_dir` and `config.out_dir`.
        swept: keys of the sweep and this job's values.
    """
    mine = {key: value for key, value in swept.items() if not key.startswith("bm25.") and key not in FOLDERS}
    settings = {key: value for key, value in mine.items() if key not in NOT_IN_RESULTS}
    return JobFolders(
        Path(str(experiment.config.index_dir)) / folder_of(mine, NOT_IN_INDEX),
        Path(str(experiment.config.out_dir)) / folder_of(settings),
        {key: value for key, value in settings.items() if key != MODEL_KEY},
    )


def _evaluate(
    experiment: Experiment,
    model: Any,
    dataset: str,
    data: Any,
    folders: JobFolders,
    warnings: list[Finding],
) -> Any:
    """Return the `DatasetResult` of one data set: the finished one, or a new one."""
    from splade.distributed import available_threads
    from splade.pipeline import Retriever, index_collection
    from splade.pipeline.beir_results import finished_result, judge_and_store
    from splade.pipeline.checks import check_index, check_judgements, check_truncation

    run = experiment.config
    system = ", ".join([model.name, *(f"{key.rpartition('.')[2]}={value}" for key, value in folders.settings.items())])
    index_dir, out_dir = folders.index / "beir" / dataset, folders.out / "beir" / dataset
    n_threads = available_threads(run.n_threads)
    settings = _settings(experiment, model, data) | {"n_threads": n_threads}
    finished = finished_result(system, dataset, data.split, out_dir, settings)
    if finished is not None:
        return finished
    index = index_collection(
        model, data.collection, index_dir, run.max_length, run.index_retrieve_batch_size, run.overwrite_final
    )
    found = [*warnings, *check_truncation(model, data.collection, run.max_length), *check_index(index)]
    write_index_reports(index, index_dir, found)
    found += check_judgements(data.qrels, data.queries, index)
    stored = _stored_queries(experiment, model, settings, index_dir) if experiment.beir.keep_vectors else None
    retriever = Retriever.of(model, index, run, encode=stored.encode if stored is not None else None)
    queries = list(data.queries.items())
    stats, found = write_run(retriever, queries, out_dir, f"splade-{dataset.replace('/', '-')}", found)
    if stored is not None:
        stats["encoding_ms_per_query"] = 1e3 * stored.encoding_seconds / len(queries)
    costs = {"L0_d": index.mean_terms, "index_bytes": index.n_bytes, "n_docs": index.n_docs, "model": model.name}
    return judge_and_store(system, dataset, data, out_dir, settings, costs | stats, found)


def _settings(experiment: Experiment, model: Any, data: Any) -> dict[str, Any]:
    """Return everything that the results depend on."""
    from splade.models.splade import digest_weights
    from splade.pipeline.beir_results import dataset_identity
    from splade.pipeline.indexing import source_digest

    run, init = experiment.config, experiment.init_dict
    return {
        "model": model.fingerprint().as_dict(),
        "query_encoder": {"digest": digest_weights(model.query_encoder), "top_k": init.top_q},
        "precision": {"fp16": init.fp16},
        "max_length": run.max_length,
        "search": {"top_k": run.top_k, "threshold": run.threshold, "effort": run.search_effort},
        **dataset_identity(data, source_digest(data.collection)),
    }


def _stored_queries(experiment: Experiment, model: Any, settings: Mapping[str, Any], index_dir: Path) -> Any:
    """Return the encoder whose vectors are kept beside the index."""
    from splade.encoding import encode_texts
    from splade.pipeline.stored_queries import StoredQueries

    run = experiment.config
    names = ("model", "query_encoder", "precision", "max_length", "queries")
    encode = functools.partial(
        encode_texts,
        model.query_encoder,
        model.query_tokenizer,
        max_length=run.max_length,
        batch_size=run.index_retrieve_batch_size,
    )
    path = index_dir / f"queries_{settings['query_encoder']['digest']}_{settings['split']}.npz"
    return StoredQueries(path, {name: settings[name] for name in names}, encode)


def _compare(baseline: Any, result: Any, data: Any) -> str:
    """Test the differences from BM25, and write all of the comparison beside the model's run."""
    from splade.datasets.runs import read_run
    from splade.evaluation.beir_protocol import drop_identical_ids
    from splade.evaluation.comparison import compare_runs
    from splade.reports.comparison_report import differences_table

    both = {found.system: drop_identical_ids(read_run(found.folder / "run.json")) for found in (baseline, result)}
    compared = compare_runs(
        both, data.qrels, METRICS, baseline=baseline.system, texts=data.collection, query_texts=data.queries
    )  # fmt: skip
    write_comparison(compared, result.folder / "compare_bm25")
    table = differences_table(compared).to_text()
    return f"{result.dataset}: {table}\n  queries that differ most: {result.folder / 'compare_bm25.txt'}"


def after_sweep(results: list[BeirResult]) -> str:
    """Return the table that ends a sweep."""
    return write_beir_tables([result.out_dir for result in results])
