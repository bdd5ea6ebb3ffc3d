"""One stage of an adaptation: a teacher, training, and the better of two models, by queries that were held out."""

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
from splade.tasks.made_set import MADE, round_trip
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
    """

    name: str
    experiment: Experiment
    verdict: Verdict
    other: Verdict | None
    trained: str

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


def run_stage(
    name: str, experiment: Experiment, train_set: Dataset, folder: Path, judged: Dataset | None = None
) -> Stage:
    """Train on the queries of a data set; the better model is in `folder/checkpoint`.

    Args:
        name: `made`, if the queries are; only those count then that the teacher answers with their own document.
        experiment: the model as it is, and all settings.
        train_set: its queries, qrels and documents.
        folder: takes everything.
        judged: queries that only have a say in which model is kept.
    """
    as_it_is = deepcopy(experiment)
    as_it_is.config.pretrained_no_yamlconfig = True
    old = SparseSystem(as_it_is, {})
    logger.info("%s queries: what the model and its teacher retrieve", name)
    mined = evaluate_in(folder, experiment, old, train_set, BEFORE, "mined")
    experiment = deepcopy(experiment)
    scores = run_file = mined.folder / RUN_FILE
    given = name != MADE and "data.TRAIN.DATASET_PATH" in own_files(experiment)
    if not given and WeightedLoss.parse(experiment.config.loss).needs_teacher:
        index_dir = _index_dir(folder, BEFORE, train_set)
        teacher = teach(experiment, train_set, run_file, index_dir, folder / "teacher" / train_set.name)
        if name == MADE:
            train_set = _with_qrels(train_set, round_trip(train_set, teacher, experiment.adapt.round_trip))
            write_json(folder / "kept_qrels.json", train_set.qrels)
            experiment.data.TRAIN.QREL_PATH = str(folder / "kept_qrels.json")
        scores = folder / TEACHER_FILE
        write_teacher(teacher, train_set, scores)
    training, held_out = training_experiment(experiment, scores, folder / CHECKPOINT)
    n_trained_on = sum(query_id not in held_out for query_id in train_set.queries)
    note = f"{n_trained_on} {name} queries are trained on, {len(held_out)} held out"
    logger.info(note)
    trained = train(training)
    verdict, other = stored_verdicts(folder) or judge(training, folder, mined, train_set, held_out, old, judged)
    stage = Stage(name, training, verdict, other, f"{note}\n{trained.summary()}")
    if not stage.helped:
        _keep_old(as_it_is, training, folder, stage)
    return stage


def evaluate_in(
    folder: Path, experiment: Experiment, system: System, dataset: Dataset, index: str, name: str
) -> EvaluatedRun:
    """Evaluate on a data set in `folder/<name>/beir/`, with the index `folder/index/<index>/beir/`."""
    out_dir = folder / name / "beir" / dataset.name
    return evaluate_system(
        system, dataset, PROTOCOL, experiment.config.top_k, _index_dir(folder, index, dataset), out_dir
    )


def _index_dir(folder: Path, index: str, dataset: Dataset) -> Path:
    return folder / "index" / index / "beir" / dataset.name


def judge(
    training: Experiment,
    folder: Path,
    mined: EvaluatedRun,
    train_set: Dataset,
    held_out: set[str],
    old: System,
    judged: Dataset | None,
) -> tuple[Verdict, Verdict | None]:
    """Compare both models on the held-out queries, which helped to choose the checkpoint, and on judged ones."""
    new = SparseSystem(training, {})
    queries = {query_id: text for query_id, text in train_set.queries.items() if query_id in held_out}
    qrels = {query_id: own for query_id, own in (train_set.qrels or {}).items() if query_id in held_out}
    dataset = replace(train_set, queries=queries, qrels=qrels, split="train, held out")
    after = evaluate_in(folder, training, new, dataset, AFTER, HELD_OUT)
    verdict = _compare(read_run(mined.folder / RUN_FILE), read_run(after.folder / RUN_FILE), qrels, "held-out")
    if judged is None:
        return verdict, None
    first = evaluate_in(folder, training, old, judged, BEFORE, f"judged_{BEFORE}")
    then = evaluate_in(folder, training, new, judged, AFTER, f"judged_{AFTER}")
    runs = read_run(first.folder / RUN_FILE), read_run(then.folder / RUN_FILE)
    return verdict, _compare(runs[0], runs[1], judged.qrels or {}, "judged")


def _compare(before: Run, after: Run, qrels: Qrels, kind: str) -> Verdict:
    own = {query_id: before.get(query_id, {}) for query_id in qrels}
    runs = {BEFORE: drop_identical_ids(own), AFTER: drop_identical_ids(after)}
    difference = compare_runs(runs, qrels, ["nDCG@10"], n_queries_shown=0).pairs[0]
    old, new = PROTOCOL.evaluate(own, qrels), PROTOCOL.evaluate(after, qrels)
    return Verdict(len(qrels), old, new, difference.p_value, kind)


def _with_qrels(dataset: Dataset, qrels: Qrels) -> Dataset:
    queries = {query_id: text for query_id, text in dataset.queries.items() if query_id in qrels}
    return replace(dataset, queries=queries, qrels=qrels)


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
    if (folder / "index" / AFTER).is_dir():
        (folder / "index" / AFTER).rename(aside / "index")


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
