"""One stage of an adaptation: training, and the better of two models, by queries that were held out."""

import logging
import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from splade.config import Experiment
from splade.config.record import save_config
from splade.datasets.dataset import Dataset
from splade.datasets.qrels import Qrels
from splade.datasets.runs import Run, read_run
from splade.errors import DataError
from splade.evaluation.beir_protocol import drop_identical_ids
from splade.evaluation.comparison import compare_runs
from splade.evaluation.protocols import BeirProtocol
from splade.losses import WeightedLoss
from splade.models.load import load_for_inference
from splade.models.save import DONE_FILE, MODEL_FOLDER, QUERY_MODEL_FOLDER, read_done, save_splade
from splade.retrieval.evaluate_retriever import RUN_FILE, EvaluatedRun
from splade.storage.atomic import read_json_object, write_json
from splade.storage.checksums import checksums
from splade.tasks.adaptation import own_files, training_experiment
from splade.tasks.adaptation_teacher import TEACHER_FILE, teach, write_teacher
from splade.tasks.systems import SparseSystem, System, evaluate_system
from splade.tasks.train import train

logger = logging.getLogger(__name__)

BEFORE, AFTER, HELD_OUT, NOT_KEPT = "before", "after", "held_out", "not_kept"
CHECKPOINT = "checkpoint"
# Beside a model that was kept as it was: the figures of the adapted one.
NOT_ADAPTED_FILE = "not_adapted.json"
METRIC = "NDCG@10"
PROTOCOL = BeirProtocol()
CHANCE = 0.32
"""p-value of a difference as large as its standard error: a smaller gain may well be none."""


@dataclass(frozen=True)
class Verdict:
    """What queries that were not trained on say.

    Attributes:
        n_queries: number of them.
        before: metrics of the model as it was.
        after: metrics of the adapted model.
        p_value: of a paired t-test of the difference in nDCG@10.
        kind: what kind of queries they are.
    """

    n_queries: int
    before: dict[str, float]
    after: dict[str, float]
    p_value: float
    kind: str = "held-out"

    @property
    def helped(self) -> bool:
        """Whether the adapted model ranks them better, by more than the standard error of the difference."""
        return self.after[METRIC] > self.before[METRIC] and self.p_value < CHANCE

    @property
    def harmed(self) -> bool:
        """Whether it ranks them worse, by more than that."""
        return self.after[METRIC] < self.before[METRIC] and self.p_value < CHANCE

    def __str__(self) -> str:
        change = f"nDCG@10 of the {self.n_queries} {self.kind} queries: {self.before[METRIC]:.4f} before, "
        return change + f"{self.after[METRIC]:.4f} after (paired t-test: p = {self.p_value:.2g})"


@dataclass(frozen=True)
class Stage:
    """What became of a model in a stage.

    Attributes:
        name: after its queries: `made` or `judged`.
        experiment: settings of the model that is better, in `config.checkpoint_dir`.
        verdict: of the held-out queries.
        other: of judged queries that had no part in it, where there are some.
        trained: what training says of itself.
        index: which index of a data set the adapted model searches: one of its own, or that of the model as it was.
    """

    name: str
    experiment: Experiment
    verdict: Verdict
    other: Verdict | None
    trained: str
    index: str = AFTER

    @property
    def helped(self) -> bool:
        """Whether the adapted model is kept."""
        return self.verdict.helped and not (self.other is not None and self.other.harmed)

    def summary(self) -> str:
        """Return what was trained and which model is kept, as text."""
        kept = "the adapted model" if self.helped else "the model as it was, because adapting it did not help"
        figures = ". ".join(str(verdict) for verdict in (self.verdict, self.other) if verdict is not None)
        return f"{self.trained}\nkept: {kept}. {figures}"

    def to_json(self) -> dict[str, object]:
        """Return which model was kept and why."""
        figures = {HELD_OUT: verdict_json(self.verdict)}
        if self.other is not None:
            figures["judged"] = verdict_json(self.other)
        return {"kept": AFTER if self.helped else BEFORE, **figures}


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """Return metrics before and after."""
    both = {
        name: {BEFORE: verdict.before[metric], AFTER: verdict.after[metric]}
        for name, metric in (("ndcg@10", METRIC), ("recall@100", "Recall@100"))
    }
    return both | {"n_queries": verdict.n_queries, "p_value": verdict.p_value}


def run_judged_stage(experiment: Experiment, judged: Dataset, folder: Path) -> Stage:
    """Train both encoders on judged queries; the better model is in `folder/checkpoint`.

    Args:
        experiment: the model as it is, and all settings.
        judged: queries, qrels and documents.
        folder: takes everything.
    """
    as_it_is = model_as_it_is(experiment)
    old = SparseSystem(as_it_is, {})
    logger.info("judged queries: what the model retrieves for them")
    mined = evaluate_in(folder, experiment, old, judged, BEFORE, "mined")
    scores = mined.folder / RUN_FILE
    given = "data.TRAIN.DATASET_PATH" in own_files(experiment)
    if not given and WeightedLoss.parse(experiment.config.loss).needs_teacher:
        teacher = teach(experiment, judged, scores, index_dir(experiment, BEFORE, judged), folder / "teacher")
        scores = folder / TEACHER_FILE
        write_teacher(teacher, judged, scores)
    training, held_out = training_experiment(experiment, scores, folder / CHECKPOINT)
    n_trained_on = sum(query_id not in held_out for query_id in judged.queries)
    note = f"{n_trained_on} judged queries are trained on, {len(held_out)} held out"
    logger.info(note)
    trained = train(training)
    verdict, other = stored_verdicts(folder) or judge(training, folder, mined, with_queries(judged, held_out))
    return decided(Stage("judged", training, verdict, other, f"{note}\n{trained.summary()}"), as_it_is, folder)


def model_as_it_is(experiment: Experiment) -> Experiment:
    """Return the settings that load the model which is to be adapted."""
    as_it_is = deepcopy(experiment)
    as_it_is.config.pretrained_no_yamlconfig = True
    return as_it_is


def decided(stage: Stage, as_it_is: Experiment, folder: Path) -> Stage:
    """Put the model as it was where the adapted one is, if adapting it did not help."""
    if not stage.helped:
        _keep_old(as_it_is, stage.experiment, folder, stage)
    return stage


def evaluate_in(
    folder: Path, experiment: Experiment, system: System, dataset: Dataset, index: str, name: str
) -> EvaluatedRun:
    """Evaluate on a data set in `folder/<name>/beir/`, with the index `config.out_dir/index/<index>/beir/`."""
    out_dir, where = folder / name / "beir" / dataset.name, index_dir(experiment, index, dataset)
    return evaluate_system(system, dataset, PROTOCOL, experiment.config.top_k, where, out_dir)


def index_dir(experiment: Experiment, index: str, dataset: Dataset) -> Path:
    """Return the folder of an index, `before` or `after`, of a data set's documents."""
    return Path(str(experiment.config.out_dir)) / "index" / index / "beir" / dataset.name


def judge(
    training: Experiment, folder: Path, before: EvaluatedRun, held_out: Dataset, index: str = AFTER
) -> tuple[Verdict, Verdict | None]:
    """Compare both models on the held-out queries; `before` ranks them, and perhaps others, with the old model."""
    after = evaluate_in(folder, training, SparseSystem(training, {}), held_out, index, HELD_OUT)
    runs = read_run(before.folder / RUN_FILE), read_run(after.folder / RUN_FILE)
    return compare(*runs, held_out.qrels or {}, "held-out"), None


def compare(before: Run, after: Run, qrels: Qrels, kind: str) -> Verdict:
    """Return what the rankings of both models say of some queries."""
    own = {query_id: before.get(query_id, {}) for query_id in qrels}
    runs = {BEFORE: drop_identical_ids(own), AFTER: drop_identical_ids(after)}
    difference = compare_runs(runs, qrels, ["nDCG@10"], n_queries_shown=0).pairs[0]
    old, new = PROTOCOL.evaluate(own, qrels), PROTOCOL.evaluate(after, qrels)
    return Verdict(len(qrels), old, new, difference.p_value, kind)


def with_queries(dataset: Dataset, query_ids: set[str]) -> Dataset:
    """Return a data set of some of its queries."""
    queries = {query_id: text for query_id, text in dataset.queries.items() if query_id in query_ids}
    qrels = {query_id: own for query_id, own in (dataset.qrels or {}).items() if query_id in query_ids}
    return replace(dataset, queries=queries, qrels=qrels, split=f"{dataset.split}, held out")


def _keep_old(as_it_is: Experiment, training: Experiment, folder: Path, stage: Stage) -> None:
    """Put the model as it was where the adapted one is; that one goes to `folder/not_kept`, with its index."""
    place, aside, part = folder / CHECKPOINT, folder / NOT_KEPT, folder / ".checkpoint.part"
    if (place / NOT_ADAPTED_FILE).is_file():
        return
    for one in (part, aside):
        shutil.rmtree(one, ignore_errors=True)
    save_splade(load_for_inference(as_it_is), part, training.config.max_length)
    save_config(training, part)
    record = read_done(place) | {"files": checksums(part, MODEL_FOLDER, QUERY_MODEL_FOLDER)}
    verdicts = [verdict for verdict in (stage.verdict, stage.other) if verdict is not None]
    write_json(part / NOT_ADAPTED_FILE, {"verdicts": [vars(verdict) for verdict in verdicts]})
    write_json(part / DONE_FILE, record)
    place.rename(aside)
    part.rename(place)
    index = Path(str(training.config.out_dir)) / "index" / AFTER
    if stage.index == AFTER and index.is_dir():
        index.rename(aside / "index")


def stored_verdicts(folder: Path) -> tuple[Verdict, Verdict | None] | None:
    """Return what an earlier call of the same command found that kept the old model.

    Raises:
        DataError: something else is there.
    """
    path = folder / CHECKPOINT / NOT_ADAPTED_FILE
    if not path.is_file():
        return None
    try:
        first, *others = [Verdict(**figures) for figures in read_json_object(path)["verdicts"]]
        str(first), [str(other) for other in others]  # they have all that is shown of them
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not what splade.adapt writes ({error}); remove {path.parent}") from error
    return first, next(iter(others), None)
