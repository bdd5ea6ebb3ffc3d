"""What users give to training: wrong files end with an error that says where, what is left out is reported."""

import gzip
import json
import logging
import pickle

import pytest

from splade.config import compose_experiment
from splade.errors import ConfigError, DataError
from splade.tasks.train import train

DOCUMENTS = {f"d{i}": f"text number {i} of the small collection" for i in range(8)}
QUERIES = {f"q{i}": f"question {i}" for i in range(4)}
QRELS = {f"q{i}": {f"d{i}": 1} for i in range(4)}
SCORES = {q: {d: 10.0 - i for i, d in enumerate(DOCUMENTS)} for q in QUERIES}


@pytest.fixture
def files(tmp_path):
    """Write a consistent set of hard negatives; tests replace one of them."""
    write_tsv(tmp_path / "documents.tsv", DOCUMENTS)
    write_tsv(tmp_path / "queries.tsv", QUERIES)
    (tmp_path / "qrels.json").write_text(json.dumps(QRELS))
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    return tmp_path


@pytest.fixture
def settings(tiny_model, tmp_path):
    """Overrides of a run of two steps on the files."""
    return {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.checkpoint_dir": tmp_path / "checkpoint",
        "config.nb_iterations": 2,
        "config.train_batch_size": 2,
        "config.n_negatives": 2,
        "config.max_length": 16,
        "config.loss": "KlDiv",
        "config.augment_pairs": "null",
        "data.type": "hard_negatives",
        "data.TRAIN.DATASET_PATH": tmp_path / "scores.json",
        "data.TRAIN.D_COLLECTION_PATH": tmp_path / "documents.tsv",
        "data.TRAIN.Q_COLLECTION_PATH": tmp_path / "queries.tsv",
        "data.TRAIN.QREL_PATH": tmp_path / "qrels.json",
        "data.VALIDATION_SIZE_FOR_LOSS": 1,
    }


def run(settings, **changes):
    return train(compose_experiment("config_default", [f"{k}={v}" for k, v in (settings | changes).items()]))


def write_tsv(path, texts):
    path.write_text("".join(f"{text_id}\t{text}\n" for text_id, text in texts.items()))


def test_consistent_files_train(files, settings):
    result = run(settings)
    assert result.steps == 2 and "4 training examples" in result.summary()


def test_query_without_any_teacher_score(files, settings):
    (files / "scores.json").write_text(json.dumps({q: s for q, s in SCORES.items() if q != "q2"}))
    with pytest.raises(DataError, match=r"scores\.json: 1 judged queries without any teacher score.*'q2'"):
        run(settings)


def test_positive_that_is_not_in_the_collection(files, settings):
    (files / "qrels.json").write_text(json.dumps(QRELS | {"q1": {"d1": 1, "nowhere": 1}}))
    with pytest.raises(DataError, match=r"documents.*positives that are not in the collection.*'nowhere'.*'q1'"):
        run(settings)


def test_negative_that_is_not_in_the_collection(files, settings):
    scores = {q: {"d0": 1.0, "d1": 1.0, "d2": 1.0, "d3": 1.0, "gone1": 2.0, "gone2": 3.0} for q in QUERIES}
    (files / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(DataError, match=r"scores\.json: query 'q\d': document 'gone\d'"):
        run(settings, **{"config.nb_iterations": 20})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04not a pickle", r"scores\.pkl"),
        (pickle.dumps(print), r"scores\.pkl.*print"),
        (pickle.dumps({"q0": {"d0": "high"}}), r"scores\.pkl.*high"),
        (gzip.compress(pickle.dumps(SCORES))[:-20], r"scores\.pkl"),
    ],
)
def test_unreadable_pickle(files, settings, content, message):
    name = "scores.pkl.gz" if content[:2] == b"\x1f\x8b" else "scores.pkl"
    (files / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        run(settings, **{"data.TRAIN.DATASET_PATH": files / name})


def test_published_form_of_scores(files, settings):
    """Integer ids in a compressed pickle, as the published cross-encoder scores have them."""
    write_tsv(files / "documents.tsv", {i: text for i, text in enumerate(DOCUMENTS.values())})
    write_tsv(files / "queries.tsv", {i: text for i, text in enumerate(QUERIES.values())})
    (files / "qrels.json").write_text(json.dumps({str(i): {str(i): 1} for i in range(4)}))
    scores = {i: {d: float(d) for d in range(8)} for i in range(4)}
    (files / "scores.pkl.gz").write_bytes(gzip.compress(pickle.dumps(scores)))
    assert run(settings, **{"data.TRAIN.DATASET_PATH": files / "scores.pkl.gz"}).steps == 2


@pytest.mark.parametrize(
    ("kind", "loss", "line", "message"),
    [
        ("triplets", "PairwiseNLL", "question\tanswer", r"raw\.tsv: line 3: 2 columns; expected three"),
        ("triplets", "PairwiseNLL", "a\tb\tc\t1\t2", r"line 3: 5 columns.*triplets_with_distil"),
        ("triplets_with_distil", "KlDiv", "a\tb\tc\t1\tnan", r"line 3: the score must be a finite number, got 'nan'"),
    ],
)
def test_triplet_line_with_wrong_columns(files, settings, kind, loss, line, message):
    good = "question\tanswer\tother" + ("\t2\t1" if kind != "triplets" else "")
    (files / "raw.tsv").write_text(f"{good}\n{good}\n{line}\n{good}\n")
    data = {"data.type": kind, "data.TRAIN.DATASET_PATH": files, "config.loss": loss, "config.n_negatives": 1}
    with pytest.raises(DataError, match=message):
        run(settings, **data)


def test_what_is_left_out_is_counted_and_reported_at_the_start(files, settings, caplog):
    (files / "scores.json").write_text(json.dumps(SCORES | {"q1": {"d1": 1.0, "d2": 2.0}, "q9": {"d1": 1.0}}))
    (files / "qrels.json").write_text(json.dumps(QRELS | {"q3": {"nowhere": 1}}))
    with caplog.at_level(logging.INFO):
        result = run(settings)
    lines = [
        "3 training examples",
        "1 queries have too few candidate negatives and repeat them (the first: 'q1')",
        "left out: 1 queries without a positive in the collection (the first: 'q3')",
        "left out: 1 scored queries without judgements (the first: 'q9')",
    ]
    assert all(line in result.summary() for line in lines)
    messages = [record.getMessage() for record in caplog.records]
    reported = next(i for i, message in enumerate(messages) if all(line in message for line in lines))
    assert reported <= 1


def test_mistakes_leave_nothing_that_the_corrected_command_stumbles_over(files, settings):
    (files / "scores.json").rename(files / "renamed.json")
    with pytest.raises(DataError, match=r"scores\.json"):
        run(settings, **{"config.lr": 1e-3})
    assert run(settings, **{"data.TRAIN.DATASET_PATH": files / "renamed.json"}).steps == 2


def test_mistakes_do_not_cost_the_model_that_was_to_be_replaced(files, settings):
    first = run(settings)
    replacement = {"config.lr": 1e-3, "config.overwrite": True}
    with pytest.raises(DataError):
        run(settings, **replacement, **{"data.TRAIN.DATASET_PATH": "/no/such/scores.json"})
    with pytest.raises(ConfigError, match="config.lr was"):
        run(settings, **{"config.lr": 1e-3})
    assert run(settings) == first


def test_retrieved_run_is_a_scores_file(settings, tiny_model, tmp_path):
    """Retrieve for the training queries, then train on what was retrieved: no glue in between."""
    from splade.tasks.index import index
    from splade.tasks.retrieve import retrieve

    toy = "pkg://splade/data/toy"
    pretrained = {
        "init_dict.model_type_or_dir": tiny_model(),
        "config.pretrained_no_yamlconfig": True,
        "config.index_dir": tmp_path / "index",
        "config.out_dir": tmp_path / "out",
        "config.top_k": 30,
        "config.eval_metric": "[[mrr_10]]",
        "data.Q_COLLECTION_PATH": f"[{toy}/queries/train]",
        "data.EVAL_QREL_PATH": f"[{toy}/qrels/train.json]",
    }
    experiment = compose_experiment("config_default", [f"{k}={v}" for k, v in pretrained.items()])
    index(experiment), retrieve(experiment)
    mined = {
        "data.TRAIN.D_COLLECTION_PATH": f"{toy}/collection",
        "data.TRAIN.Q_COLLECTION_PATH": f"{toy}/queries/train",
        "data.TRAIN.QREL_PATH": f"{toy}/qrels/train.json",
        "config.loss": "{InBatchPairwiseNLL: 1}",
        "config.n_negatives": 4,
    }
    reports = set()
    for name in ("run.json", "run.trec"):
        folders = {"config.checkpoint_dir": tmp_path / name, "data.TRAIN.DATASET_PATH": tmp_path / "out" / "TOY" / name}
        result = run(settings, **mined, **folders)
        assert result.steps == 2
        reports.add(result.report)
    assert len(reports) == 1
