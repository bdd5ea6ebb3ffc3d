"""The stage of an adaptation that needs no judgement: the query encoder learns from queries made from the collection.

The documents, and their index, stay as they are.
"""

import logging
from dataclasses import asdict
from pathlib import Path

from splade.config import Experiment
from splade.config.record import save_config, save_record
from splade.datasets.dataset import Dataset
from splade.datasets.runs import read_run
from splade.errors import DataError
from splade.inverted_index import open_index
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.models.load import load_for_inference
from splade.models.save import save_splade
from splade.retrieval.evaluate_retriever import RUN_FILE
from splade.storage.atomic import write_json
from splade.tasks.adaptation import made_experiment
from splade.tasks.adaptation_stage import (
    AFTER,
    BEFORE,
    CHECKPOINT,
    Stage,
    Verdict,
    compare,
    decided,
    evaluate_in,
    index_dir,
    judge,
    model_as_it_is,
    stored_verdicts,
    with_queries,
)
from splade.tasks.made_set import MADE, round_trip
from splade.tasks.systems import SparseSystem
from splade.training.query_training import AnsweredQuery, train_queries
from splade.training.run import TrainResult
from splade.training.run_folder import RunFolder
from splade.training.sampler import split_rows
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)

KEPT_QRELS_FILE = "kept_qrels.json"
_HELD_OUT_SHARE = 0.4
"""Of made queries, which cost nothing: a gain of a hundredth is seen among a thousand of them, not a hundred."""


def run_made_stage(experiment: Experiment, made: Dataset, folder: Path, judged: Dataset | None) -> Stage:
    """Train the query encoder on made queries; the better model is in `folder/checkpoint`.

    Only those are trained on that find their own document among the best `adapt.round_trip`. All that are held out
    count: those that the model as it is cannot answer are where another may be better.

    Args:
        experiment: the model as it is, and all settings.
        made: queries, their own documents as qrels, and the documents less the queries cut out of them.
        folder: takes everything.
        judged: queries that only have a say in which model is kept.
    """
    as_it_is = model_as_it_is(experiment)
    old = SparseSystem(as_it_is, {})
    logger.info("made queries: what the model retrieves for them")
    mined = evaluate_in(folder, experiment, old, made, BEFORE, "mined")
    query_ids = list(made.queries)
    n_held_out = experiment.adapt.held_out or int(_HELD_OUT_SHARE * len(query_ids))
    if not 0 < n_held_out <= len(query_ids) // 2:
        raise DataError(
            f"{len(query_ids)} queries could be made: too few to train on some and to see with others whether that has "
            f"helped (adapt.held_out={experiment.adapt.held_out})"
        )
    rows, held_out = split_rows(len(query_ids), n_held_out, experiment.config.seed)
    found = read_run(mined.folder / RUN_FILE)
    kept = round_trip(with_queries(made, {query_ids[row] for row in rows}), found, experiment.adapt.round_trip)
    write_json(folder / KEPT_QRELS_FILE, kept)
    training = made_experiment(experiment, Path(str(experiment.config.out_dir)) / MADE)
    training.config.pretrained_no_yamlconfig, training.config.checkpoint_dir = False, str(folder / CHECKPOINT)
    training.data.TRAIN.QREL_PATH = str(folder / KEPT_QRELS_FILE)
    note = f"{len(kept)} made queries are trained on, {len(held_out)} held out"
    logger.info(note)
    pairs = [(made.queries[query_id], next(iter(own))) for query_id, own in kept.items()]
    trained = _train(training, as_it_is, pairs, index_dir(experiment, BEFORE, made))
    verdicts = stored_verdicts(folder)
    if verdicts is None:
        verdict, _ = judge(training, folder, mined, with_queries(made, {query_ids[row] for row in held_out}), BEFORE)
        verdicts = verdict, None if judged is None else _say(training, folder, old, judged)
    return decided(Stage(MADE, training, *verdicts, f"{note}\n{trained.summary()}", BEFORE), as_it_is, folder)


def _train(training: Experiment, as_it_is: Experiment, pairs: list[tuple[str, str]], index: Path) -> TrainResult:
    """Train on (query, id of its document) and save the model, unless that is done."""
    folder = RunFolder(training)
    finished = folder.outcome()
    if finished is not None:
        return TrainResult(folder.path, **finished)
    folder.start()
    save_config(training, folder.path)
    save_record(training, folder.path, "adapt")
    doc_ids, vectors = _vectors(index)
    numbers = {doc_id: number for number, doc_id in enumerate(doc_ids)}
    queries = [AnsweredQuery(text, numbers[doc_id]) for text, doc_id in pairs]
    model, steps = train_queries(load_for_inference(as_it_is), vectors, queries, training.config)
    save_splade(model, folder.path, training.config.max_length)
    result = TrainResult(folder.path, steps, steps, None, "", "the query encoder only: the index stays", "last")
    folder.finish({name: value for name, value in asdict(result).items() if name != "folder"})
    return result


def _vectors(index: Path) -> tuple[list[str], SparseVectors]:
    parts = list(IndexedVectors(open_index(index)).by_document())
    doc_ids = [doc_id for names, _ in parts for doc_id in names]
    return doc_ids, SparseVectors.concatenate([vectors for _, vectors in parts], parts[0][1].vocab_size)


def _say(training: Experiment, folder: Path, old: SparseSystem, judged: Dataset) -> Verdict:
    """Compare both models on judged queries."""
    before = evaluate_in(folder, training, old, judged, BEFORE, f"judged_{BEFORE}")
    after = evaluate_in(folder, training, SparseSystem(training, {}), judged, BEFORE, f"judged_{AFTER}")
    runs = read_run(before.folder / RUN_FILE), read_run(after.folder / RUN_FILE)
    return compare(*runs, judged.qrels or {}, "judged")
