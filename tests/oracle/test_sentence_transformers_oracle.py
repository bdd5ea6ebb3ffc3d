"""Every SparseEncoder of sentence-transformers encodes here as it does there, or is refused by name.

Needs the extra `sentence-transformers`: pip install .[sentence-transformers]
"""

import json
import shutil
from dataclasses import asdict

import pytest
import torch

import splade
from splade.config import compose_experiment
from splade.config.schema import ModelConfig, RunConfig
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, IndexFileError, ModelError
from splade.models.load import build_splade, load_checkpoint
from splade.models.save import save_splade

pytest.importorskip("sentence_transformers", reason="needs the extra: pip install .[sentence-transformers]")
TEXTS = ["why do cats sleep so long", "A cat sleeps [UNK].", "the history of the printing press " * 40, ""]
PROMPTS = {"query": "search query: ", "document": "passage to keep: "}


@pytest.fixture(scope="module")
def bases(tiny_model):
    """Two random masked-language models with weights large enough that many terms are active."""
    from transformers import AutoModelForMaskedLM

    folders = [tiny_model(seed=seed) for seed in (3, 4)]
    for folder in folders:
        model = AutoModelForMaskedLM.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8.0)
        model.save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def base(bases):
    """One of them."""
    return bases[0]


def transformer(base, **settings):
    from sentence_transformers.sparse_encoder.modules import Transformer

    return Transformer(str(base), transformer_task="fill-mask", **settings)


def pooling(agg="max", activation="relu"):
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    return SpladePooling(agg, activation_function=activation)


def lookup(base, seed=0, frozen=False):
    """Weights of query tokens, zero for a third of them, and not for special tokens."""
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    tokenizer = transformer(base).tokenizer
    weights = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(seed)).sub(0.3).relu()
    return SparseStaticEmbedding(tokenizer, weights, frozen=frozen)


def routed(queries, documents, **settings):
    from sentence_transformers.sparse_encoder.modules import Router

    return Router.for_query_document(query_modules=queries, document_modules=documents, **settings)


def mapped(queries, documents):
    from sentence_transformers.sparse_encoder.modules import Router

    mappings = {("query", None): "short", (None, "text"): "long"}
    return Router({"long": documents, "short": queries}, route_mappings=mappings)


MODULES = {
    "max": lambda a, b: [transformer(a), pooling()],
    "sum": lambda a, b: [transformer(a), pooling("sum")],
    "log1p_relu": lambda a, b: [transformer(a), pooling("max", "log1p_relu")],
    "sum of log1p_relu": lambda a, b: [transformer(a), pooling("sum", "log1p_relu")],
    "length of the tokenizer": lambda a, b: [transformer(a, processor_kwargs={"model_max_length": 9}), pooling()],
    "length of each side": lambda a, b: [transformer(a, query_length=5, document_length=12), pooling()],
    "look-up and model": lambda a, b: [routed([lookup(a)], [transformer(a), pooling("max", "log1p_relu")])],
    "two models": lambda a, b: [routed([transformer(b), pooling()], [transformer(a), pooling("max", "log1p_relu")])],
    "one model, two activations": lambda a, b: [
        (lambda shared: routed([shared, pooling("max", "log1p_relu")], [shared, pooling()]))(transformer(a))
    ],
    "models before one pooling": lambda a, b: [routed([transformer(b)], [transformer(a)]), pooling("sum")],
    "routes by mapping": lambda a, b: [mapped([lookup(a, frozen=True)], [transformer(a), pooling()])],
}
SETTINGS = {
    "prompts": {"prompts": PROMPTS},
    "prompt of passages": {"prompts": {"query": "q: ", "passage": "p: "}},
    "few terms": {"max_active_dims": 7},
    "all": {"prompts": PROMPTS, "max_active_dims": 11, "similarity_fn_name": "dot", "default_prompt_name": "query"},
}
CASES = [(modules, "nothing") for modules in MODULES]
CASES += [(modules, said) for modules in ("max", "look-up and model", "two models") for said in SETTINGS]


def save(bases, folder, modules="max", said="nothing"):
    from sentence_transformers import SparseEncoder

    encoder = SparseEncoder(modules=MODULES[modules](*bases), device="cpu", **SETTINGS.get(said, {}))
    encoder.save_pretrained(str(folder))
    return folder


def assert_same_vectors(ours, folder, texts=TEXTS):
    """Compare all weights of queries and documents with those of sentence-transformers."""
    from sentence_transformers import SparseEncoder

    theirs = SparseEncoder(str(folder), device="cpu")
    for encode, their_encode in (
        (ours.encode_queries, theirs.encode_query),
        (ours.encode_documents, theirs.encode_document),
    ):
        expected = their_encode(texts, convert_to_sparse_tensor=False)
        assert (expected > 0).sum() > 0
        torch.testing.assert_close(torch.from_numpy(encode(texts).to_dense()), expected, rtol=1e-4, atol=1e-4)
        one = torch.from_numpy(encode(texts[0]).to_dense())
        torch.testing.assert_close(one, expected[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("modules", "said"), CASES)
def test_every_weight_is_the_same(bases, tmp_path, modules, said):
    folder = save(bases, tmp_path / "model", modules, said)
    assert_same_vectors(splade.load(str(folder)), folder)


def test_what_the_folder_says_can_be_overridden_by_less_only(bases, tmp_path):
    folder = save(bases, tmp_path / "model", "length of the tokenizer")
    assert splade.load(str(folder)).documents.max_length == 9
    assert splade.load(str(folder), max_length=5).documents.max_length == 5
    longer = splade.load(str(folder), max_length=64)
    assert longer.queries.max_length == 9
    assert [finding.code for finding in longer.findings] == ["model-cuts-earlier"]
    assert splade.load(str(bases[0])).documents.max_length == 256


@pytest.mark.parametrize(
    ("modules", "said", "differences"),
    [
        ("max", "nothing", []),
        ("log1p_relu", "nothing", ["document_encoder"]),
        ("max", "prompts", ["document_encoder"]),
        ("max", "few terms", ["document_encoder"]),
        ("sum", "nothing", ["agg"]),
    ],
)
def test_what_changes_documents_is_in_the_fingerprint(bases, tmp_path, modules, said, differences):
    plain = splade.load(str(bases[0]))
    folder = save(bases, tmp_path / "model", modules, said)
    model = splade.load(str(folder))
    assert model.fingerprint.differences(plain.fingerprint.as_dict()) == differences
    assert (model.network.query_digest() == plain.network.query_digest()) is False  # its length is its own
    index = splade.Index.build(tmp_path / "index", splade.load(str(bases[0]), max_length=9), [("d", TEXTS[0])])
    if differences:
        with pytest.raises(IndexFileError, match=differences[0]):
            splade.Retriever(model, index)
    else:
        splade.Retriever(model, index)


def test_an_index_of_longer_documents_than_the_model_takes_is_refused(bases, tmp_path):
    index = splade.Index.build(tmp_path / "index", splade.load(str(bases[0])), [("d", TEXTS[2])])
    model = splade.load(str(save(bases, tmp_path / "model", "length of the tokenizer")))
    with pytest.raises(IndexFileError, match="cut at max_length 256, .* itself cuts at 9"):
        splade.Retriever(model, index)


def write(path, changes):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changes))


MODEL, TRANSFORMER, POOLING = (
    *("config_sentence_transformers.json", "sentence_bert_config.json"),
    "1_SpladePooling/config.json",
)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (POOLING, {"activation_function": "gelu"}, "activation_function is 'gelu'; allowed are relu, log1p_relu"),
        (POOLING, {"temperature": 2}, "'temperature' is not known here"),
        (MODEL, {"similarity_fn_name": "cosine"}, "similarity_fn_name is 'cosine'"),
        (MODEL, {"model_type": "SentenceTransformer"}, "it is a SentenceTransformer, not a SparseEncoder"),
        (MODEL, {"prompts": {"query": 5}}, "'prompts' must be an object of strings"),
        (MODEL, {"prompts": ["query"]}, "'prompts' must be an object of strings"),
        (MODEL, {"max_active_dims": 0}, "max_active_dims is 0"),
        (MODEL, {"max_active_dims": True}, "max_active_dims is True"),
        (TRANSFORMER, {"max_seq_length": "64"}, "max_seq_length is '64'"),
        (TRANSFORMER, {"query_length": -1}, "query_length is -1"),
        (TRANSFORMER, {"do_lower_case": True}, "do_lower_case=True changes its vectors"),
        (TRANSFORMER, {"query_expansion": {"length": 32}}, "query_expansion=.* changes its vectors"),
        (TRANSFORMER, {"processing_kwargs": {"text": {"padding": False}}}, "processing_kwargs=.* changes"),
        (TRANSFORMER, {"model_args": {"dtype": "float16"}}, "model_args=.* changes"),
        (TRANSFORMER, {"temperature": 2}, "'temperature' is not known here"),
        (TRANSFORMER, {"transformer_task": "feature-extraction"}, "transformer_task=feature-extraction"),
        (TRANSFORMER, {"modality_config": {"text": {"method": "embed"}}}, "logits of a masked-language model"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(bases, tmp_path, file, changes, message):
    folder = save(bases, tmp_path / "model")
    write(folder / file, changes)
    with pytest.raises(ModelError, match=message):
        splade.load(str(folder))


ROUTER = "router_config.json"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (ROUTER, {"structure": {"document": ["document_7"]}}, "no modules for texts of the document side"),
        (ROUTER, {"structure": {"query": [], "document": []}}, "no modules for texts of the document"),
        (ROUTER, {"structure": {"query": ["../x"]}, "types": {"../x": "sentence_transformers.X"}}, "leaves the folder"),
        (ROUTER, {"structure": {"query": ["x"]}, "types": {"x": "evil.Code"}}, "code of a model folder is never run"),
        (ROUTER, {"types": 5}, "must have the objects 'types' and 'structure'"),
        (ROUTER, {"parameters": {"route_mappings": {"f()": "query"}}}, "no pair of task and modality"),
        (ROUTER, {"parameters": {"route_mappings": [1]}}, "'route_mappings' must be an object"),
        ("query_0_SparseStaticEmbedding/config.json", {"path": "idf.json"}, "path='idf.json' names a file outside"),
        ("query_0_SparseStaticEmbedding/config.json", {"scale": 2}, "'scale' is not known here"),
    ],
)
def test_routers_that_lead_nowhere(bases, tmp_path, file, changes, message):
    folder = save(bases, tmp_path / "model", "look-up and model")
    if "structure" in changes and "document" not in changes["structure"]:
        router = json.loads((folder / file).read_text())
        changes = {name: router[name] | part for name, part in changes.items()}
    write(folder / file, changes)
    with pytest.raises(ModelError, match=message):
        splade.load(str(folder))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.ones(3)}, r"has weights of shape \(3,\)"),
        ({"weight": -torch.ones(400)}, "a weight is negative"),
        ({"weight": torch.full((400,), float("nan"))}, "not a number"),
        ({"embedding": torch.ones(400)}, "does not load as weights of tokens"),
        (None, "has no model.safetensors"),
    ],
)
def test_wrong_weights_of_query_tokens(bases, tmp_path, tensors, message):
    from safetensors.torch import save_file

    path = save(bases, tmp_path / "model", "look-up and model") / "query_0_SparseStaticEmbedding" / "model.safetensors"
    path.unlink()
    if tensors is not None:
        save_file(tensors, path)
    with pytest.raises(ModelError, match=message):
        splade.load(str(tmp_path / "model"))


def others(base):
    """Modules that are not those of a SPLADE model, by the one that the message names."""
    from sentence_transformers.sparse_encoder.modules import Dense, SparseAutoEncoder

    embedding = 400
    return {
        "SparseAutoEncoder": [transformer(base), pooling(), SparseAutoEncoder(embedding, 32, 4, 8)],
        "Dense": [transformer(base), pooling(), Dense(embedding, 8)],
        "SpladePooling, SparseStaticEmbedding": [transformer(base), pooling(), lookup(base)],
    }


@pytest.mark.parametrize("named", ["SparseAutoEncoder", "Dense", "SpladePooling, SparseStaticEmbedding"])
def test_other_modules_are_refused_by_name(bases, tmp_path, named):
    from sentence_transformers import SparseEncoder

    SparseEncoder(modules=others(bases[0])[named], device="cpu").save_pretrained(str(tmp_path / "model"))
    with pytest.raises(ModelError, match=named):
        splade.load(str(tmp_path / "model"))


def test_documents_need_a_language_model(bases, tmp_path):
    from sentence_transformers import SparseEncoder

    router = routed([lookup(bases[0])], [lookup(bases[0], seed=1)])
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(tmp_path / "model"))
    with pytest.raises(ModelError, match="its documents are encoded by SparseStaticEmbedding"):
        splade.load(str(tmp_path / "model"))


def build(bases, name, **init):
    """Build what training starts from, with weights of query tokens that training has changed."""
    run = RunConfig(matching_type=init.pop("matching_type", "splade"), max_length=24)
    model = build_splade(ModelConfig(model_type_or_dir=str(name), **init), run).eval()
    if run.matching_type == "splade_idf":
        with torch.no_grad():
            model.query_encoder.weights.copy_(torch.rand(400, generator=torch.Generator().manual_seed(1)) - 0.3)
    return model


TRAINED = {
    "one encoder": {},
    "sum": {"agg": "sum"},
    "log1p_relu": {"activation": "log1p_relu"},
    "splade_doc": {"matching_type": "splade_doc"},
    "splade_idf": {"matching_type": "splade_idf"},
    "two encoders": {"model_type_or_dir_q": 1},
    "equal limits": {"matching_type": "splade_topk", "top_d": 6, "top_q": 6},
}


@pytest.mark.parametrize("kind", TRAINED)
def test_a_saved_model_is_the_same_there(bases, tmp_path, kind):
    init = dict(TRAINED[kind])
    if "model_type_or_dir_q" in init:
        init["model_type_or_dir_q"] = str(bases[1])
    model = build(bases, bases[0], **init)
    save_splade(model, tmp_path, max_length=24)
    assert_same_vectors(SparseModel(model, 24), tmp_path / "model")
    assert_same_vectors(splade.load(str(tmp_path / "model")), tmp_path / "model")


@pytest.mark.parametrize("modules", ["log1p_relu", "look-up and model", "two models", "length of each side"])
def test_training_keeps_what_the_folder_says(bases, tmp_path, modules):
    start = save(bases, tmp_path / "start", modules, "all")
    save_splade(build(bases, start), tmp_path / "trained", max_length=24)
    assert_same_vectors(SparseModel(build(bases, start), 24), tmp_path / "trained" / "model")
    experiment = compose_experiment("config_default", ["config.max_length=24"])
    (tmp_path / "trained" / "training_done.json").write_text(json.dumps({"settings": asdict(experiment)}))
    again = load_checkpoint(tmp_path / "trained", experiment).eval()
    assert again.fingerprint() == build(bases, start).fingerprint()
    assert_same_vectors(SparseModel(again, 24), tmp_path / "trained" / "model")


def test_limits_of_one_side_are_not_promised_but_prompts_stay(bases, tmp_path):
    start, settings = save(bases, tmp_path / "start", "log1p_relu", "prompts"), {"top_d": 6}
    model = build(bases, start, matching_type="splade_topk", **settings)
    save_splade(model, tmp_path)
    assert not (tmp_path / "model" / "modules.json").exists()
    again = build(bases, tmp_path / "model", matching_type="splade_topk", **settings)
    assert again.fingerprint() == model.fingerprint() and again.query_digest() == model.query_digest()
    write(tmp_path / "model" / "encoder_settings.json", {"query": {"no such": "setting"}})
    with pytest.raises(ModelError, match="encoder_settings.json: not what training writes"):
        build(bases, tmp_path / "model")


def test_settings_that_the_model_contradicts(bases, tmp_path):
    folder = save(bases, tmp_path / "model", "look-up and model")
    with pytest.raises(ConfigError, match="without a language model; set config.matching_type=splade"):
        build(bases, folder, matching_type="splade_topk", top_d=5)
    with pytest.raises(ModelError, match="trained with the activation 'log1p_relu'"):
        build(bases, folder, activation="relu")
    with pytest.raises(ModelError, match="set init_dict.agg=max"):
        build(bases, folder, agg="sum")


def test_a_pair_takes_the_query_side_of_the_other_folder(bases, tmp_path):
    folder = save(bases, tmp_path / "pair", "look-up and model", "prompts")
    model = splade.load(str(bases[0]), query_encoder=str(folder), max_length=512)
    expected = splade.load(str(folder)).encode_queries(TEXTS).to_dense()
    torch.testing.assert_close(torch.from_numpy(model.encode_queries(TEXTS).to_dense()), torch.from_numpy(expected))


def test_a_router_that_was_fetched_before_needs_no_network(bases, tmp_path, monkeypatch):
    commit = "0" * 40
    repository = tmp_path / "models--me--router"
    save(bases, repository / "snapshots" / commit, "two models")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert not (repository / "snapshots" / commit / "model.safetensors").exists()
    assert_same_vectors(splade.load("me/router"), repository / "snapshots" / commit)


def test_weights_of_an_older_file_format(bases, tmp_path):
    folder = save(bases, tmp_path / "model", "look-up and model")
    queries = folder / "query_0_SparseStaticEmbedding"
    weights = splade.load(str(folder)).network.query_encoder.weights.detach().clone()
    (queries / "model.safetensors").unlink()
    torch.save({"weight": weights}, queries / "pytorch_model.bin")
    assert_same_vectors(splade.load(str(folder)), folder)
    shutil.move(folder / "router_config.json", folder / "router.json")
    with pytest.raises(ModelError, match="config.json"):
        splade.load(str(folder))
