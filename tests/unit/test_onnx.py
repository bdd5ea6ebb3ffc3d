"""A model as ONNX files: the same vectors for any batch, its index is the model's, and files that are not whole."""

import json
import pickle

import pytest
import torch

import splade
from splade.config import compose_experiment
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, ModelError
from splade.models.masked_lm import MaskedLMEncoder
from splade.storage.checksums import checksums
from splade.tasks.export import export

pytest.importorskip("onnxruntime", reason="needs the extra: pip install .[onnx]")
pytest.importorskip("onnxscript", reason="needs the extra: pip install .[onnx]")

LOG1P = "init_dict.activation=log1p_relu"
TEXTS = ["why do cats sleep so long", "A cat sleeps.", "the history of the printing press " * 40, ""]


def exported(folder, model, *overrides):
    """Export a model, and return the folder and the model that was exported."""
    from splade.models.load import load_for_inference

    keys = [f"init_dict.model_type_or_dir={model}", "config.pretrained_no_yamlconfig=true", "config.max_length=40"]
    experiment = compose_experiment("config_default", [*keys, f"config.out_dir={folder}", "target=onnx", *overrides])
    shown = export(experiment).summary()
    assert "weights within" in shown and str(folder / "onnx") in shown
    return folder / "onnx", SparseModel(load_for_inference(experiment), 40)


@pytest.fixture(scope="module")
def plain(tiny_model, tmp_path_factory):
    """An exported model with prompts, and the model itself."""
    prompts = ["config.prompt_q='find: '", "config.prompt_d='text: '"]
    return exported(tmp_path_factory.mktemp("plain"), tiny_model(), *prompts)


def assert_same_vectors(ours, theirs):
    for encode, expected in (
        (ours.encode_queries, theirs.encode_queries),
        (ours.encode_documents, theirs.encode_documents),
    ):
        vectors = torch.from_numpy(expected(TEXTS).to_dense())
        assert (vectors > 0).any()
        torch.testing.assert_close(torch.from_numpy(encode(TEXTS).to_dense()), vectors, rtol=1e-4, atol=1e-4)
        one = torch.from_numpy(encode(TEXTS[0]).to_dense())
        torch.testing.assert_close(one, vectors[:1], rtol=1e-4, atol=1e-4)


def test_vectors_prompts_and_lengths(plain):
    folder, model = plain
    loaded = splade.load(str(folder))
    assert not any(isinstance(module, MaskedLMEncoder) for module in loaded.network.modules())
    assert loaded.documents.max_length == 40 and loaded.network.shared
    assert_same_vectors(loaded, model)


def test_an_index_of_the_model_is_one_of_its_files(plain, tmp_path):
    folder, model = plain
    loaded = splade.load(str(folder))
    assert loaded.fingerprint == model.fingerprint
    assert loaded.network.query_digest() == model.network.query_digest()
    index = splade.Index.build(tmp_path / "index", model, [("a", TEXTS[0]), ("b", TEXTS[1])])
    ours, theirs = (splade.Retriever(each, index).search("cats sleep", top_k=2) for each in (loaded, model))
    assert [hit.doc_id for hit in ours] == [hit.doc_id for hit in theirs]
    assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        ["config.matching_type=splade_topk", "init_dict.top_d=5", "init_dict.top_q=3", "init_dict.agg=sum", LOG1P],
        ["config.matching_type=splade_doc"],
        ["init_dict.model_type_or_dir_q=OTHER"],
    ],
)
def test_kinds_of_models(tiny_model, tmp_path, overrides):
    overrides = [override.replace("OTHER", str(tiny_model(seed=7))) for override in overrides]
    folder, model = exported(tmp_path, tiny_model(), *overrides)
    assert_same_vectors(splade.load(str(folder)), model)


def test_what_cannot_be_done_with_it(plain, tmp_path):
    folder, _ = plain
    loaded = splade.load(str(folder))
    with pytest.raises(ModelError, match="cannot be trained"):
        loaded.network.train()
    keys = [
        f"init_dict.model_type_or_dir={folder}",
        "config.pretrained_no_yamlconfig=true",
        f"config.out_dir={tmp_path}",
    ]
    for override, message in (
        ("init_dict.agg=sum", "init_dict.agg=sum, but the ONNX files .* were exported with max"),
        ("config.prompt_q=x", "config.prompt_q=x, but the ONNX files .* exported with find: "),
        ("init_dict.precision=int8", "target=onnx exports float32"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(compose_experiment("config_default", [*keys, "target=onnx", override]))
    with pytest.raises(ModelError, match="OnnxEncoder cannot be exported"):
        export(compose_experiment("config_default", [*keys, "target=onnx"]))
    (tmp_path / "onnx").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        export(compose_experiment("config_default", [*keys, "target=onnx"]))


@pytest.fixture
def broken(plain, tmp_path):
    """A copy of the folder to break."""
    import shutil

    return shutil.copytree(plain[0], tmp_path / "onnx")


def rewrite(folder, **changes):
    path = folder / "onnx_model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def side(folder, **changes):
    rewrite(folder, document=json.loads((folder / "onnx_model.json").read_text())["document"] | changes)


def reseal(folder, name, content):
    """Write a file, and the checksum that fits it."""
    (folder / name).write_bytes(content)
    rewrite(folder, files={path: seal for path, seal in checksums(folder).items() if path != "onnx_model.json"})


class Evil:
    def __reduce__(self):
        return pytest.fail, ("code of a file was run",)


def weights_of_tokens(folder, content):
    if not isinstance(content, bytes):
        torch.save(content, folder / "token_weights.pt")
        content = (folder / "token_weights.pt").read_bytes()
    reseal(folder, "token_weights.pt", content)
    side(folder, file="token_weights.pt")


def cut(folder):
    path = folder / "document.onnx"
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "document.onnx has .* bytes instead of"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json has 2 bytes"),
        (lambda folder: (folder / "onnx_model.json").write_text("{"), "not JSON|JSON"),
        (lambda folder: rewrite(folder, format=99), "has format 99, this version reads 1"),
        (lambda folder: rewrite(folder, files=None), "it has no checksums"),
        (lambda folder: rewrite(folder, document={}), "not what splade.export writes"),
        (lambda folder: rewrite(folder, fingerprint={}), "not what splade.export writes"),
        (lambda folder: rewrite(folder, files={}), "not what splade.export writes"),
        (lambda folder: reseal(folder, "document.onnx", b"no graph"), "ONNX Runtime does not load it"),
        (lambda folder: (folder / "onnx_model.json").write_text("[" * 100_000), "nested too deeply"),
        (lambda folder: rewrite(folder, agg="zzz"), "not what splade.export writes"),
        (lambda folder: rewrite(folder, activation=3), "not what splade.export writes"),
        (lambda folder: side(folder, file="../../etc/passwd"), "not what splade.export writes"),
        (lambda folder: side(folder, file=3), "not what splade.export writes"),
        (lambda folder: side(folder, top_k=-1), "not what splade.export writes"),
        (lambda folder: side(folder, top_k="x"), "not what splade.export writes"),
        (lambda folder: side(folder, own_tokens_only="x"), "not what splade.export writes"),
        (lambda folder: side(folder, file="token_weights.pt"), "not what splade.export writes"),
        (lambda folder: side(folder, settings={"max_length": "x"}), "not what splade.export writes"),
        (lambda folder: side(folder, settings={"max_length": -1}), "not what splade.export writes"),
        (lambda folder: side(folder, settings={"prompt": 3}), "not what splade.export writes"),
        (lambda folder: side(folder, settings={"special_tokens": "no"}), "not what splade.export writes"),
        (lambda folder: weights_of_tokens(folder, pickle.dumps(Evil())), "does not load as weights of tokens"),
        (lambda folder: weights_of_tokens(folder, b""), "does not load as weights of tokens"),
        (lambda folder: weights_of_tokens(folder, torch.ones(3)), "finite and not negative"),
        (lambda folder: weights_of_tokens(folder, {"a": 1}), "finite and not negative"),
        (lambda folder: weights_of_tokens(folder, -torch.ones(400)), "finite and not negative"),
        (lambda folder: weights_of_tokens(folder, torch.full((400,), torch.nan)), "finite and not negative"),
    ],
)
def test_files_that_are_not_whole(broken, damage, message):
    damage(broken)
    with pytest.raises(ModelError, match=message):
        splade.load(str(broken))
