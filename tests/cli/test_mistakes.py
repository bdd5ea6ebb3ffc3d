"""The likeliest mistakes with a ready model: each ends in an error that says what was wrong and what to do."""

import json
import shutil

import pytest

from splade.config import compose_experiment
from splade.errors import ConfigError, DataError, IndexFileError, ModelError, SpladeError
from splade.tasks.beir_eval import beir_eval
from splade.tasks.evaluate import evaluate
from splade.tasks.index import index
from splade.tasks.retrieve import retrieve

TOY = "pkg://splade/data/toy"


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    """Arguments of a ready model whose index of the toy collection is finished."""
    folder = tmp_path_factory.mktemp("made")
    index(experiment(small, folder))
    return small, folder


def experiment(model, folder, *overrides, pretrained=True):
    """Return the toy experiment with a ready model, index and runs in a folder."""
    arguments = [f"config.index_dir={folder}/index", f"config.out_dir={folder}/out", "config.max_length=32"]
    arguments += [f"init_dict.model_type_or_dir={model}"] if model is not None else []
    arguments += ["config.pretrained_no_yamlconfig=true"] if pretrained else []
    return compose_experiment("config_default", [*arguments, "config.n_threads=1", *overrides])


def refused(kind, task, *arguments, **options):
    """Run a task that must fail; return its message, without a file having been written where results go."""
    with pytest.raises(SpladeError) as caught:
        task(experiment(*arguments, **options))
    assert type(caught.value) is kind, caught.value
    return str(caught.value)


def test_checkpoint_folder_wrong(tmp_path):
    wrong = tmp_path / "chekpoint"
    message = refused(ModelError, index, None, tmp_path, f"config.checkpoint_dir={wrong}", pretrained=False)
    assert f"no such folder: {wrong}" in message and "config.pretrained_no_yamlconfig=true" in message
    wrong.mkdir()
    message = refused(ModelError, index, None, tmp_path, f"config.checkpoint_dir={wrong}", pretrained=False)
    assert "it holds no trained model" in message


def test_pretrained_no_yamlconfig_forgotten(small, tmp_path):
    none = tmp_path / "none"
    message = refused(ModelError, index, small, tmp_path, f"config.checkpoint_dir={none}", pretrained=False)
    assert "for a pre-trained model set config.pretrained_no_yamlconfig=true" in message
    # Worse: an older checkpoint is there, and would be used in place of the model that was named.
    none.mkdir()
    (none / "config.yaml").write_text("init_dict:\n  model_type_or_dir: distilbert-base-uncased\n")
    message = refused(ConfigError, index, small, tmp_path, f"config.checkpoint_dir={none}", pretrained=False)
    assert str(small) in message and "set config.pretrained_no_yamlconfig=true" in message
    assert not (tmp_path / "index").exists()


def test_model_folder_without_a_head(small, tmp_path):
    from transformers import AutoTokenizer, BertModel

    BertModel.from_pretrained(small).save_pretrained(tmp_path / "bare")
    AutoTokenizer.from_pretrained(small).save_pretrained(tmp_path / "bare")
    message = refused(ModelError, index, tmp_path / "bare", tmp_path)
    assert "lacks weights of a masked-language model" in message and "AutoModelForMaskedLM" in message


def test_tokenizer_of_another_model(small, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    shutil.copytree(small, tmp_path / "model")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "model" / name).unlink(missing_ok=True)
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(words))
    message = refused(ModelError, index, tmp_path / "model", tmp_path)
    assert "its tokenizer only has 13: it belongs to another model" in message
    other = tmp_path / "tokenizer"
    other.mkdir()
    (other / "vocab.txt").write_text("\n".join(words))
    shutil.copy(small / "config.json", other)
    (other / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    message = refused(ModelError, index, small, tmp_path, f"config.tokenizer_type={other}")
    assert "has another vocabulary" in message and "leave config.tokenizer_type null" in message


def test_index_of_another_model(made, make_model, tmp_path):
    small, folder = made
    other = make_model("other", seed=2)
    message = refused(IndexFileError, retrieve, other, folder, f"config.out_dir={tmp_path}/out")
    assert f"was made with the model '{small}'" in message and "index again with this one" in message
    assert not (tmp_path / "out").exists()
    message = refused(IndexFileError, index, other, folder)
    assert "another config.index_dir" in message and "config.overwrite=true" in message


def test_qrels_of_another_set(made, tmp_path):
    small, folder = made
    (tmp_path / "queries.json").write_text(json.dumps({"PLAIN-2": {"1": 1}}))
    (tmp_path / "documents.json").write_text(json.dumps({query: {"MED-10": 1} for query in heldout()}))
    for name, part in (("queries", "not one judged query id"), ("documents", "not one relevant document id")):
        qrels = f"data.EVAL_QREL_PATH=[{tmp_path}/{name}.json]"
        message = refused(DataError, retrieve, small, folder, qrels, f"config.out_dir={tmp_path}/out")
        assert part in message and "Do they belong to the same data set?" in message
        assert not (tmp_path / "out").exists()
        retrieve(experiment(small, folder))
        message = refused(DataError, evaluate, small, folder, qrels)
        assert "TOY: not one" in message and "same data set" in message


def test_queries_file_given_as_collection(small, tmp_path):
    collection = f"data.COLLECTION_PATH={TOY}/queries/heldout"
    message = refused(DataError, index, small, tmp_path, collection)
    assert "that is the queries file" in message and "give the documents" in message
    assert not (tmp_path / "index").exists()
    # Queries that the configuration does not name: nothing to compare with before the judgements are read.
    collection = f"data.COLLECTION_PATH={TOY}/queries/train"
    index(experiment(small, tmp_path, collection))
    (tmp_path / "qrels.json").write_text(json.dumps({query: {"MED-10": 1} for query in heldout()}))
    message = refused(DataError, retrieve, small, tmp_path, f"data.EVAL_QREL_PATH=[{tmp_path}/qrels.json]")
    assert "not one relevant document id of the qrels occurs in the collection" in message


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("collection.tsv", "d1\tone\nd2 \ttwo\n", "data.COLLECTION_PATH={}"),
        ("collection.jsonl", '{"_id": "d1 ", "text": "one"}\n', "data.COLLECTION_PATH={}"),
    ],
)
def test_ids_with_stray_whitespace_in_the_collection(small, tmp_path, name, content, key):
    (tmp_path / name).write_text(content)
    message = refused(DataError, index, small, tmp_path, key.format(tmp_path / name))
    assert name in message and "line" in message and "whitespace" in message
    assert not list((tmp_path / "index").glob("*.h5"))


def test_ids_with_stray_whitespace_in_the_qrels(made, tmp_path):
    small, folder = made
    qrels = {query: {f"{doc} ": grade for doc, grade in docs.items()} for query, docs in heldout().items()}
    (tmp_path / "qrels.json").write_text(json.dumps(qrels))
    message = refused(DataError, retrieve, small, folder, f"data.EVAL_QREL_PATH=[{tmp_path}/qrels.json]")
    assert "whitespace" in message


def test_lower_top_k_than_the_cut_of_a_metric(made, tmp_path, write_beir):
    small, folder = made
    asked_for = ["config.top_k=50", "config.eval_metric=[mrr_10, recall_100]"]
    message = refused(ConfigError, retrieve, small, folder, *asked_for)
    assert "config.top_k=50" in message and "recall_100 looks at 100" in message
    write_beir(tmp_path / "one")
    beir = ["+beir.dataset=one", f"+beir.dataset_path={tmp_path}", "config.top_k=10"]
    assert "R@100 looks at 100" in refused(ConfigError, beir_eval, small, tmp_path, *beir)


def test_query_and_document_encoders_swapped(small, make_model, tmp_path):
    query = make_model("for_queries", seed=3)
    index(experiment(small, tmp_path, f"init_dict.model_type_or_dir_q={query}"))
    message = refused(IndexFileError, retrieve, query, tmp_path, f"init_dict.model_type_or_dir_q={small}")
    assert "document and query encoder are swapped" in message
    names = [make_model(f"pair-{side}", seed=seed) for side, seed in (("query", 4), ("doc", 5))]
    message = refused(ConfigError, index, names[0], tmp_path, f"init_dict.model_type_or_dir_q={names[1]}")
    assert "these look swapped" in message


def test_longer_texts_than_the_model_has_positions_for(made):
    small, folder = made
    message = refused(ModelError, retrieve, small, folder, "config.max_length=513")
    assert "at most 512 tokens; set config.max_length=512 or less" in message


def test_nearly_all_documents_cut(small, tmp_path):
    lines = [f"d{i}\t{letter} {f'{letter} ' * 40}" for i, letter in enumerate("abcdefghijklmnopqrst")]
    (tmp_path / "collection.tsv").write_text("\n".join(lines) + "\n")
    cut = index(experiment(small, tmp_path, f"data.COLLECTION_PATH={tmp_path}/collection.tsv"))
    assert "20 of the first 20 documents are longer than config.max_length=32" in " ".join(cut.summary().split())
    assert json.loads((tmp_path / "index/index_stats.json").read_text())["warnings"]
    longer = [f"data.COLLECTION_PATH={tmp_path}/collection.tsv", f"config.index_dir={tmp_path}/longer"]
    assert "WARNING" not in index(experiment(small, tmp_path, *longer, "config.max_length=64")).summary()


def test_warnings_are_shown_and_kept(small, tmp_path):
    judged = [doc_id for docs in heldout().values() for doc_id, grade in docs.items() if grade > 0]
    lines = [f"{judged[0]}\tone judged document", "other\tand another one"]
    (tmp_path / "collection.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "qrels.json").write_text(json.dumps(heldout() | {"unknown": {judged[0]: 1}}))
    own = [f"data.COLLECTION_PATH={tmp_path}/collection.tsv", f"data.EVAL_QREL_PATH=[{tmp_path}/qrels.json]"]
    index(experiment(small, tmp_path, *own))
    result = retrieve(experiment(small, tmp_path, *own))
    assert "WARNING" in result.summary() and "they can never be found" in " ".join(result.summary().split())
    kept = json.loads((tmp_path / "out/TOY/q_stats.json").read_text())["warnings"]
    assert any("judged query ids" in message for message in kept)
    assert any("relevant document ids" in message for message in kept)


def heldout():
    """Return the judgements of the toy queries."""
    from splade.datasets.qrels import read_qrels

    return read_qrels(f"{TOY}/qrels/heldout.json")
