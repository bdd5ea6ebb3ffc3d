"""Rerankers, dense models and what they leave on disk: damaged, foreign, changed meanwhile, written by two at once."""

import json
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import BERT_TOKENS, make_tokenizer
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from splade.datasets.text_collection import PairCollection
from splade.encoding.dense_model import DenseModel
from splade.encoding.pairs import PairTokenizer
from splade.encoding.reranker import Reranker
from splade.encoding.tokens import token_ids
from splade.errors import BusyError, ConfigError, DataError, IndexFileError, ModelError
from splade.models.pair_scorer import HEAD_FILE, load_reranker
from splade.retrieval import reranked
from splade.retrieval.dense_index import INDEX_FILE, DenseIndex
from splade.retrieval.reranked import RerankedRetriever
from splade.retrieval.score_journal import SCORES_FILE, STATE_FILE
from splade.retrieval.stored_run import StoredRun
from splade.storage.arrays import Layout, array_writer
from splade.storage.locks import FolderLock

DOCUMENTS = {f"d{i}": f"{text} " * (1 + 3 * (i % 3)) for i, text in enumerate(["rivers rise", "a kiln", "moss"] * 3)}
QUERIES = {"q0": "why do rivers rise", "q1": "kiln", "q2": "moss on stone"}
RUN = {q: {d: 9.0 - i for i, d in enumerate(list(DOCUMENTS)[j : j + 6])} for j, q in enumerate(QUERIES)}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cross_encoder(tiny_tokenizer, tmp_path_factory):
    torch.manual_seed(2)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tiny_tokenizer), num_labels=1, **SMALL))
    return saved(tmp_path_factory.mktemp("ce"), model, tiny_tokenizer)


@pytest.fixture(scope="module")
def reranker(cross_encoder):
    return Reranker.load(str(cross_encoder), max_length=32)


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return tiny_model()


@pytest.fixture(autouse=True)
def one_query_a_window(monkeypatch):
    monkeypatch.setattr(reranked, "WINDOW_PAIRS", 6)


def retrieve(model, folder=None, documents=DOCUMENTS, queries=QUERIES):
    first, texts = StoredRun("first", RUN), PairCollection(list(documents.items()))
    return RerankedRetriever(first, model, texts, depth=6, folder=folder).retrieve(queries, 6)


def interrupted(model, folder, n_queries):
    """Leave the scores of so many queries in a folder."""
    stream = retrieve(model, folder)
    for _ in range(n_queries):
        next(stream)
    stream.close()
    assert len((folder / SCORES_FILE).read_bytes().splitlines()) == n_queries
    return folder / SCORES_FILE


def scored_queries(monkeypatch):
    asked = []
    score = Reranker.score
    monkeypatch.setattr(Reranker, "score", lambda self, q, d: asked.extend(d) or score(self, q, d))
    return asked


def test_scores_of_texts_that_were_changed_are_not_used(reranker, tmp_path, monkeypatch):
    interrupted(reranker, tmp_path, 2)
    changed = DOCUMENTS | {"d4": "quite another text"}  # in the ranking of both queries
    asked = scored_queries(monkeypatch)
    assert dict(retrieve(reranker, tmp_path, changed)) == dict(retrieve(reranker, None, changed))
    assert asked[:3] == ["q0", "q1", "q2"]
    interrupted(reranker, tmp_path, 2)
    queries = QUERIES | {"q1": "another question"}
    del asked[:]
    assert dict(retrieve(reranker, tmp_path, queries=queries)) == dict(retrieve(reranker, None, queries=queries))
    assert asked[:2] == ["q1", "q2"]


@pytest.mark.parametrize("seed", range(6))
def test_scores_that_were_damaged_are_not_used(reranker, tmp_path, seed):
    path, expected = interrupted(reranker, tmp_path, 3), dict(retrieve(reranker))
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in random.integers(len(content), size=1 + seed).tolist():
        content[place] ^= int(random.integers(1, 256))
    path.write_bytes(content)
    assert dict(retrieve(reranker, tmp_path)) == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n", b"[]\n", b"{" * 9000, b"\xff" * 99 + b"\n", b"null\n" * 3])
@pytest.mark.parametrize("name", [SCORES_FILE, STATE_FILE])
def test_foreign_files_in_place_of_scores(reranker, tmp_path, content, name):
    interrupted(reranker, tmp_path, 1)
    (tmp_path / name).write_bytes(content)
    assert dict(retrieve(reranker, tmp_path)) == dict(retrieve(reranker))
    assert not list(tmp_path.iterdir())


def test_a_second_process_does_not_write_among_the_scores(reranker, tmp_path):
    held, release = threading.Event(), threading.Event()

    def hold():
        with FolderLock(tmp_path):
            held.set()
            release.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    with pytest.raises(BusyError, match=str(tmp_path)):
        next(retrieve(reranker, tmp_path))
    release.set()
    other.join()
    assert len(dict(retrieve(reranker, tmp_path))) == 3


def edited(folder, target, **changes):
    shutil.copytree(folder, target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(target)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": 3},
        {"architectures": [3]},
        {"architectures": "BertForSequenceClassification"},
        {"model_type": "no-such-type"},
        {"model_type": ["bert"]},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": 2},
        {"num_attention_heads": 3},
        {"vocab_size": 7},
        {"hidden_act": "zzz"},
        {"dtype": "zzz"},
        {"id2label": "x"},
        {"id2label": {"0": "a", "1": "b"}},
        {"auto_map": {"AutoModelForSequenceClassification": "evil.Model", "AutoModel": "evil.Model"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
def test_configurations_of_rerankers_and_dense_models(cross_encoder, encoder, tmp_path, changes):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_reranker(edited(cross_encoder, tmp_path / "ce", **changes), "cross-encoder")
    if not {"architectures", "id2label"} & set(changes):  # of no meaning for a dense model
        changes = changes | ({"num_hidden_layers": 9} if changes.get("num_hidden_layers") == 2 else {})
        with pytest.raises(ModelError, match=str(tmp_path)):
            DenseModel.load(edited(encoder, tmp_path / "dense", **changes))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"[" * 100_000, b'{"a": 1' + b"0" * 6000 + b"}", b"\xff\xfe"]
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_of_rerankers_and_dense_models(cross_encoder, encoder, tmp_path, name, content):
    for folder, load in ((cross_encoder, lambda f: load_reranker(f, "cross-encoder")), (encoder, DenseModel.load)):
        target = shutil.copytree(folder, tmp_path / folder.name)
        (target / name).write_bytes(content)
        with pytest.raises(ModelError, match=str(target)):
            load(str(target))


MODULES = [{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", "3"),
        ("modules.json", "[1]"),
        ("modules.json", "[" * 100_000),
        ("modules.json", json.dumps([MODULES[0], MODULES[1] | {"path": "x" * 5000}])),
        ("modules.json", json.dumps([MODULES[0], MODULES[1] | {"path": "a\0b"}])),
        ("modules.json", json.dumps([MODULES[0], MODULES[1] | {"path": "/etc"}])),
        ("1_Pooling/config.json", "[" * 100_000),
        ("1_Pooling/config.json", '{"pooling_mode": ["cls"]}'),
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}'),
        ("sentence_bert_config.json", '{"max_seq_length": 1e400}'),
        ("sentence_bert_config.json", '{"max_seq_length": -1}'),
        ("sentence_bert_config.json", '{"max_seq_length": "9"}'),
        ("sentence_bert_config.json", "[1]"),
        ("config_sentence_transformers.json", '{"prompts": ["a"]}'),
        ("config_sentence_transformers.json", '{"prompts": {"query": {"a": 1}}}'),
    ],
)
def test_what_a_dense_folder_says_of_itself(encoder, tmp_path, name, content):
    folder = shutil.copytree(encoder, tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "modules.json").write_text(json.dumps(MODULES))
    assert DenseModel.load(folder).encode_queries(["moss"]).shape == (1, 16)
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=str(folder)):
        DenseModel.load(folder)


def test_texts_that_no_tokenizer_takes(reranker, encoder):
    assert reranker.score({"q": "kiln"}, {"q": []})["q"].shape == (0,)
    for query, text in (("\ud800", "a"), ("a", "\udfff b"), (3, "a"), ("a", None)):
        with pytest.raises(DataError, match="a text to encode"):
            reranker.score({"q": query}, {"q": [text]})
    dense = DenseModel.load(encoder, max_length=16)
    for text in ("\ud800", 3):
        with pytest.raises(DataError, match="a text to encode"):
            dense.encode_queries([text])
    for special, longest in ((True, 2), (False, 0)):
        with pytest.raises(ConfigError, match=f"adds {longest} tokens to every text; {longest + 1} or more"):
            token_ids(make_tokenizer(BERT_TOKENS), ["tea"], longest, special)
    assert dense.encode_queries([]).shape == (0, 16) and np.isfinite(dense.encode_queries(["", "a" * 10_000])).all()


def test_a_tokenizer_whose_texts_have_no_begin_and_end(tiny_tokenizer, monkeypatch):
    call = type(tiny_tokenizer).__call__

    def odd(self, text, **settings):
        found = call(self, text, **settings)
        return found if "add_special_tokens" in settings else {"input_ids": [5, 6]}

    monkeypatch.setattr(type(tiny_tokenizer), "__call__", odd)
    with pytest.raises(ModelError, match="which tokens begin and end a text"):
        PairTokenizer(tiny_tokenizer, "monoT5", 40)


@pytest.fixture(scope="module")
def t5(tiny_tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tiny_tokenizer), pad_token_id=0, **size))
    return saved(tmp_path_factory.mktemp("t5"), model, tiny_tokenizer)


def test_heads_of_a_rank_t5(t5, tmp_path):
    good = {"weight": torch.ones(1, 16), "bias": torch.ones(1)}
    for content in (b"", b"x" * 99, good | {"weight": torch.ones(2, 16)}, good | {"more": torch.ones(1)}, None):
        folder = shutil.copytree(t5, tmp_path / "t5", dirs_exist_ok=True)
        if content is None:
            (folder / HEAD_FILE).unlink()
            (folder / HEAD_FILE).mkdir()
        elif isinstance(content, bytes):
            (folder / HEAD_FILE).write_bytes(content)
        else:
            save_file(content, folder / HEAD_FILE)
        with pytest.raises(ModelError, match="no head of a rankT5"):
            load_reranker(str(folder), "rankT5")
    (folder / HEAD_FILE).rmdir()
    save_file(good | {"bias": torch.tensor([float("nan")])}, folder / HEAD_FILE)
    with pytest.raises(ModelError, match="not finite"):
        Reranker.load(str(folder), "rankT5").score({"q": "a"}, {"q": ["b"]})


def test_weights_that_are_no_numbers(cross_encoder, encoder, tmp_path):
    for folder in (cross_encoder, encoder):
        target = shutil.copytree(folder, tmp_path / folder.name)
        weights = load_file(target / "model.safetensors")
        spoilt = {
            name: torch.full_like(w, torch.nan) if "output.dense.weight" in name else w for name, w in weights.items()
        }
        save_file(spoilt, target / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        Reranker.load(str(tmp_path / cross_encoder.name)).score({"q": "a"}, {"q": ["b"]})
    with pytest.raises(ModelError, match="not finite"):
        DenseModel.load(tmp_path / encoder.name).encode_queries(["a"])


FORGED = Layout("dense index", {"vectors": "<f4", "doc_id_text": "|u1", "doc_id_ends": "<i8"})


@pytest.mark.parametrize(
    "changes",
    [
        {"n_docs": -1},
        {"n_docs": 3},
        {"n_docs": 2**62, "dimensions": 2**62},
        {"dimensions": 0},
        {"dimensions": -16},
        {"metadata": "[1]"},
        {"metadata": "{"},
        {"doc_id_ends": [1, 99]},
        {"doc_id_ends": [2, 1]},
        {"doc_id_ends": [-5, 2]},
        {"doc_id_text": [255, 254]},
        {"vectors": [float("nan")] * 8},
        {"vectors": [float("inf")] * 8},
    ],
)
def test_a_dense_index_forged_with_a_right_checksum(tmp_path, changes):
    parts = {"n_docs": 2, "dimensions": 4, "metadata": "{}", "doc_id_ends": [1, 2], "doc_id_text": [97, 98]}
    parts |= {"vectors": [1.0] * 8}

    def write(parts):
        attributes = {name: parts[name] for name in ("n_docs", "dimensions", "metadata")}
        with array_writer(tmp_path / INDEX_FILE, FORGED, attributes) as writer:
            for name, kind in FORGED.dtypes.items():
                writer.write(name, np.array(parts[name], kind))

    write(parts)
    assert list(DenseIndex.open(tmp_path).doc_ids) == ["a", "b"]
    write(parts | changes)
    with pytest.raises(IndexFileError, match=INDEX_FILE):
        DenseIndex.open(tmp_path)
