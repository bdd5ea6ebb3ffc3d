"""Task: move a trained model to a collection with some judged queries; keep it as it is where that does not help."""

import logging
import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from splade.config import Experiment, require
from splade.config.jobs import Figures
from splade.config.record import save_config, save_record
from splade.datasets.dataset import Dataset
from splade.datasets.runs import read_run
from splade.distributed import n_processes
from splade.errors import ConfigError, DataError
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.comparison import compare_runs
from splade.evaluation.protocols import BeirProtocol
from splade.models.load import load_for_inference
from splade.models.save import DONE_FILE, MODEL_FOLDER, QUERY_MODEL_FOLDER, read_done, save_splade
from splade.reports.summaries import TaskResult, before_after_table
from splade.retrieval.evaluate_retriever import RUN_FILE, EvaluatedRun
from splade.storage.atomic import read_json, write_json
from splade.storage.checksums import checksums
from splade.tasks.adaptation import open_judged, training_experiment
from splade.tasks.evaluation_sets import all_findings
from splade.tasks.systems import SparseSystem, System, evaluate_system
from splade.tasks.train import train

logger = logging.getLogger(__name__)

BEFORE, AFTER, HELD_OUT, NOT_KEPT = "before", "after", "held_out", "not_kept"
SUMMARY_FILE = "summary.json"
# Beside a model that was kept as it was: the figures of the adapted one.
NOT_ADAPTED_FILE = "not_adapted.json"
METRICS = {"ndcg@10": "NDCG@10", "recall@100": "Recall@100"}
COSTS = ("flops", "L0_q", "L0_d", "index_bytes")
PROTOCOL = BeirProtocol()


@dataclass(frozen=True)
class Verdict:
    """What the held-out queries say.

    Attributes:
        n_queries: number of them.
        before: metrics of the model as it was.
        after: metrics of the adapted model.
        p_value: of a paired t-test of the difference in nDCG@10.
    """

    n_queries: int
    before: dict[str, float]
    after: dict[str, float]
    p_value: float

    @property
    def helped(self) -> bool:
        """Whether the adapted model ranks them better."""
        return self.after["NDCG@10"] > self.before["NDCG@10"]

    def __str__(self) -> str:
        change = f"nDCG@10 of the {self.n_queries} held-out queries: {self.before['NDCG@10']:.4f} before, "
        change += f"{self.after['NDCG@10']:.4f} after (paired t-test: p = {self.p_value:.2g})"
        if self.helped:
            return f"kept: the adapted model. {change}"
        return f"kept: the model as it was, because adapting it did not help. {change}"


@dataclass(frozen=True, kw_only=True)
class AdaptResult(TaskResult):
    """An adapted model, or the old one.

    Attributes:
        verdict: of the held-out queries.
        test: results on the test queries, before and, if the adapted model was kept, after.
    """

    verdict: Verdict
    test: dict[str, EvaluatedRun]

    def figures(self) -> list[Figures]:
        """Return the metrics on the held-out queries, then the last results on the test queries."""
        return [Figures("held-out queries", self.verdict.after), *[run.figures() for run in self.test.values()][-1:]]


def adapt(experiment: Experiment) -> AdaptResult:
    """Train a model on the judged queries of a collection; the better model is config.out_dir/checkpoint."""
    require(experiment, "config.out_dir", "init_dict.model_type_or_dir")
    if n_processes() > 1:
        raise ConfigError("splade.adapt runs in one process; start it without torchrun")
    out_dir = Path(str(experiment.config.out_dir))
    train_set, test_set = open_judged(experiment)
    as_it_is = deepcopy(experiment)
    as_it_is.config.pretrained_no_yamlconfig = True
    save_record(experiment, out_dir, "adapt")

    logger.info("step 1 of 4: the model as it is")
    old = SparseSystem(as_it_is, {})
    before = None if test_set is None else _evaluate(experiment, old, test_set, BEFORE, BEFORE)
    logger.info("step 2 of 4: what it retrieves for the training queries")
    mined = _evaluate(experiment, old, train_set, BEFORE, "mined")
    training, held_out = training_experiment(experiment, mined.folder / RUN_FILE, out_dir / "checkpoint")
    trained_on = f"{training_size(train_set, held_out)} judged queries are trained on, {len(held_out)} held out"
    logger.info("step 3 of 4: training; %s", trained_on)
    trained = train(training)
    logger.info("step 4 of 4: the adapted model")
    verdict = _stored_verdict(out_dir) or _judge(experiment, training, mined, train_set, held_out)
    if not verdict.helped:
        _keep_old(as_it_is, training, out_dir, verdict)
    test = {} if before is None else {BEFORE: before}
    if before is not None and test_set is not None and verdict.helped:
        test[AFTER] = _evaluate(experiment, SparseSystem(training, {}), test_set, AFTER, AFTER)
    write_json(out_dir / SUMMARY_FILE, _summary(verdict, test))
    lines = [f"{trained_on}\n{trained.summary()}", "", *_tables(train_set.name, test), str(verdict)]
    lines += [f"model in {out_dir / 'checkpoint' / MODEL_FOLDER}", f"  in {out_dir / SUMMARY_FILE}"]
    return AdaptResult(
        text="\n".join(lines), findings=all_findings([mined, *test.values()]), verdict=verdict, test=test
    )


def training_size(train_set: Dataset, held_out: set[str]) -> int:
    """Return the number of judged queries that are not held out."""
    return sum(query_id not in held_out for query_id in train_set.queries)


def _evaluate(experiment: Experiment, system: System, dataset: Dataset, index: str, name: str) -> EvaluatedRun:
    """Evaluate on a data set in `out_dir/<name>/beir/`, with the index `out_dir/index/<index>/beir/`."""
    out_dir = Path(str(experiment.config.out_dir))
    index_dir, folder = out_dir / "index" / index / "beir" / dataset.name, out_dir / name / "beir" / dataset.name
    return evaluate_system(system, dataset, PROTOCOL, experiment.config.top_k, index_dir, folder)


def _judge(
    experiment: Experiment, training: Experiment, mined: EvaluatedRun, train_set: Dataset, held_out: set[str]
) -> Verdict:
    """Compare both models on the held-out queries, which had a part in choosing the checkpoint but none in training."""
    queries = {query_id: text for query_id, text in train_set.queries.items() if query_id in held_out}
    qrels = {query_id: judged for query_id, judged in (train_set.qrels or {}).items() if query_id in held_out}
    dataset = replace(train_set, queries=queries, qrels=qrels, split="train, held out")
    after = _evaluate(experiment, SparseSystem(training, {}), dataset, AFTER, HELD_OUT)
    ranked = read_run(mined.folder / RUN_FILE)
    before = {query_id: ranked.get(query_id, {}) for query_id in queries}
    runs = {BEFORE: drop_identical_ids(before), AFTER: drop_identical_ids(read_run(after.folder / RUN_FILE))}
    difference = compare_runs(runs, qrels, ["nDCG@10"], n_queries_shown=0).pairs[0]
    return Verdict(len(queries), PROTOCOL.evaluate(before, qrels), after.metrics, difference.p_value)


def _keep_old(as_it_is: Experiment, training: Experiment, out_dir: Path, verdict: Verdict) -> None:
    """Put the model as it was where the adapted one is; that one goes to `out_dir/not_kept`, with its index."""
    place, aside, part = out_dir / "checkpoint", out_dir / NOT_KEPT, out_dir / ".checkpoint.part"
    if (place / NOT_ADAPTED_FILE).is_file():
        return
    for folder in (part, aside):
        shutil.rmtree(folder, ignore_errors=True)
    save_splade(load_for_inference(as_it_is), part, training.config.max_length)
    save_config(training, part)
    record = read_done(place) | {"files": checksums(part, MODEL_FOLDER, QUERY_MODEL_FOLDER)}
    figures = {"n_queries": verdict.n_queries, "p_value": verdict.p_value}
    write_json(part / NOT_ADAPTED_FILE, figures | {BEFORE: verdict.before, AFTER: verdict.after})
    write_json(part / DONE_FILE, record)
    place.rename(aside)
    part.rename(place)
    if (out_dir / "index" / AFTER).is_dir():
        (out_dir / "index" / AFTER).rename(aside / "index")


def _stored_verdict(out_dir: Path) -> Verdict | None:
    """Return what an earlier call of the same command found that kept the old model."""
    path = out_dir / "checkpoint" / NOT_ADAPTED_FILE
    if not path.is_file():
        return None
    try:
        return Verdict(**read_json(path))
    except TypeError as error:
        raise DataError(f"{path}: not what splade.adapt writes ({error}); remove {path.parent}") from error


def _tables(name: str, test: dict[str, EvaluatedRun]) -> list[str]:
    stages = {when: (run.metrics, run.costs) for when, run in test.items()}
    return [before_after_table(f"{name} ({test[BEFORE].dataset.split})", stages), ""] if test else []


def _summary(verdict: Verdict, test: dict[str, EvaluatedRun]) -> dict[str, object]:
    """Return which model was kept, and each figure before and after."""

    def both(values: dict[str, dict[str, float]], name: str) -> dict[str, float]:
        return {when: of_stage[name] for when, of_stage in values.items()}

    held_out = {BEFORE: verdict.before, AFTER: verdict.after}
    summary: dict[str, object] = {"kept": AFTER if verdict.helped else BEFORE}
    summary[HELD_OUT] = {name: both(held_out, metric) for name, metric in METRICS.items()}
    summary[HELD_OUT] |= {"n_queries": verdict.n_queries, "p_value": verdict.p_value}  # type: ignore[operator]
    metrics = {when: run.metrics for when, run in test.items()}
    costs = {when: {name: getattr(run.costs, name) for name in COSTS} for when, run in test.items()}
    summary |= {name: both(metrics, metric) for name, metric in METRICS.items() if metrics}
    return summary | {name: both(costs, name) for name in COSTS if costs}
