"""Task: static pruning of an index, or of vectors as JSON lines; one setting, or a sweep over those of a study."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from splade.config import Experiment, require
from splade.config.jobs import Figures, Sweep
from splade.config.record import save_record
from splade.config.sweep import job_title
from splade.datasets.dataset import Dataset
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, SpladeError
from splade.evaluation.costs import Costs
from splade.evaluation.protocols import EvaluationProtocol
from splade.interop.jsonl_pruning import prune_lines
from splade.interop.vector_files import files_of_form
from splade.inverted_index import InvertedIndex, open_index
from splade.inverted_index.own_terms import copy_terms, read_terms
from splade.inverted_index.prune import Pruning, prune_index
from splade.reports.index_report import write_index_report
from splade.reports.pruning_report import PrunedFigures, write_pruning_report
from splade.reports.summaries import TaskResult, cost_line, metric_line
from splade.retrieval.collection_index import Index
from splade.retrieval.evaluate_retriever import EvaluatedRun, evaluate_retriever
from splade.retrieval.index_search import IndexRetriever
from splade.retrieval.origin import copy_origin
from splade.retrieval.sparse import SparseRetriever
from splade.retrieval.vector_search import VectorRetriever
from splade.storage.locks import FolderLock
from splade.storage.paths import resolve_path
from splade.tasks.beir_eval import PROTOCOL, open_beir_datasets
from splade.tasks.evaluation_sets import open_evaluation_sets
from splade.tasks.model_loading import load_model_of_index

STUDY = (
    *(Pruning(size_to_prune=size) for size in (4, 8, 16, 32, 64)),
    *(Pruning(value_to_prune=value) for value in (0.5, 0.75, 1.0, 1.25)),
    *(Pruning(quantile=quantile) for quantile in (0.5, 0.75, 0.85)),
    *(Pruning(idf_to_prune=value) for value in (0.5, 0.75, 1.0, 1.25)),
)
"""What is compared where no setting is given: that of arXiv 2304.12702, and impacts times IDF."""
_SHARES_OF_LONGEST = (0.5, 0.25, 0.1)  # as caps of the posting lists
_Sets = list[tuple[Dataset, EvaluationProtocol | None]]


@dataclass(frozen=True, kw_only=True)
class PruneResult(TaskResult):
    """A pruned index with what it costs and, where there are queries with qrels, how good it is."""

    rows: tuple[PrunedFigures, ...] = ()

    def figures(self) -> list[Figures]:
        """Return the figures of the pruned indexes, without those of the one that was pruned."""
        return [row.figures for row in self.rows if row.method]


def prune(experiment: Experiment) -> PruneResult:
    """Prune config.index_dir into config.out_dir/index, or data.VECTORS_PATH into config.out_dir/vectors.

    Without a setting, all settings of the study, each in a folder of its own, beside the index as it is: a table and a
    figure. Indexes are evaluated on beir.dataset, or on the queries of data.Q_COLLECTION_PATH.
    """
    require(experiment, "config.out_dir")
    asked = Pruning(**{one.name: getattr(experiment, one.name) for one in fields(Pruning)})
    out_dir = Path(str(experiment.config.out_dir))
    if experiment.data.VECTORS_PATH is not None:
        return _prune_vectors(experiment, asked, out_dir)
    require(experiment, "config.index_dir")
    whole = open_index(str(experiment.config.index_dir))
    terms = read_terms(whole)
    sets = _evaluation_sets(experiment, terms)
    model = load_model_of_index(experiment)[0] if sets and terms is None else None
    if asked.given:
        rows = list(_evaluated(experiment, model, sets, asked, out_dir))
        lines = [f"{row.setting}: {_line(row)}" for row in rows]
        text = "\n".join([*lines, f"  in {out_dir / 'index'}"])
    else:
        rows = list(_evaluated(experiment, model, sets, None, out_dir / "as_it_is"))
        longest = int(whole.posting_counts.max())
        caps = (Pruning(longest_list=max(1, int(share * longest))) for share in _SHARES_OF_LONGEST)
        for pruning in (*STUDY, *caps):
            rows += _evaluated(experiment, model, sets, pruning, out_dir / pruning.name)
        text = write_pruning_report(rows, out_dir / "pruning")
    save_record(experiment, out_dir, "prune")
    return PruneResult(text=text, rows=tuple(rows))


def after_sweep(sweep: Sweep) -> str:
    """Return the table of a sweep over settings, and draw it."""
    assert sweep.folder is not None
    rows = [
        PrunedFigures(job_title(record.swept), " + ".join(sorted(record.swept)), one)
        for record in sweep.records()
        for one in record.figures
    ]
    if not rows:
        raise SpladeError("no job of the sweep has pruned anything")
    return write_pruning_report(rows, sweep.folder / "pruning")


def _evaluation_sets(experiment: Experiment, terms: list[str] | None) -> _Sets:
    if experiment.beir.dataset is not None:
        require(experiment, "beir.dataset_path")
        return [(dataset, PROTOCOL) for dataset in open_beir_datasets(experiment)]
    return open_evaluation_sets(experiment, own_terms=terms) if experiment.data.Q_COLLECTION_PATH else []


def _evaluated(
    experiment: Experiment, model: SparseModel | None, sets: _Sets, pruning: Pruning | None, folder: Path
) -> Iterator[PrunedFigures]:
    """Prune, then yield the figures on each data set, or the costs alone; None: the index as it is."""
    run = experiment.config
    if pruning is None:
        postings, setting, method = open_index(str(run.index_dir)), "as it is", ""
    else:
        postings = prune_index(str(run.index_dir), folder / "index", pruning, run.overwrite)
        copy_origin(open_index(str(run.index_dir)).path.parent, postings.path.parent)
        copy_terms(open_index(str(run.index_dir)), postings.path.parent)
        write_index_report(postings)
        setting, method = pruning.name.replace("__", ", ").replace("-", "="), pruning.method
    if not sets:
        yield PrunedFigures(setting, method, Figures(costs=_costs(postings).to_json()))
        return
    retriever: IndexRetriever = VectorRetriever(Index(postings), run)
    if model is not None:
        retriever = SparseRetriever(model, Index(postings, model), run.threshold, run.search_effort, run.n_threads)
    for dataset, protocol in sets:
        found: EvaluatedRun = evaluate_retriever(retriever, dataset, protocol, run.top_k, folder / dataset.name)
        yield PrunedFigures(setting, method, found.figures())


def _costs(postings: InvertedIndex) -> Costs:
    return Costs(n_docs=postings.n_docs, L0_d=postings.mean_terms, index_bytes=postings.n_bytes)


def _line(row: PrunedFigures) -> str:
    metrics = metric_line(row.figures.metrics)
    return ", ".join(filter(None, [metrics, cost_line(Costs.from_json(row.figures.costs))]))


def _prune_vectors(experiment: Experiment, asked: Pruning, out_dir: Path) -> PruneResult:
    if not asked.given:
        raise ConfigError(f"vectors have one setting: give {', '.join(one.name for one in fields(Pruning))}")
    files = files_of_form(resolve_path(str(experiment.data.VECTORS_PATH)), "jsonl")
    folder = out_dir / "vectors"
    with FolderLock(out_dir):
        pruned = prune_lines(files, folder, asked)
        save_record(experiment, out_dir, "prune")
    text = (
        f"{pruned.n_docs} vectors, {pruned.n_after / pruned.n_docs:.1f} terms each of "
        f"{pruned.n_before / pruned.n_docs:.1f}, {pruned.n_empty} empty\n  in {folder}"
    )
    return PruneResult(text=text)
