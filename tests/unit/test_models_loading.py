"""Loading models: what works, and what would silently give wrong vectors is refused."""

import json
import shutil
import socket
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from splade.config import compose_experiment
from splade.config.schema import ModelConfig, RunConfig
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, IndexFileError, ModelError
from splade.models.hub import model_folder
from splade.models.load import build_splade, load_checkpoint, load_for_inference
from splade.models.pretrained import load_masked_lm
from splade.models.save import save_splade
from splade.models.token_lookup import TokenLookupEncoder
from splade.retrieval.collection_index import check_made_by

TINY = "pkg://cognition/model"


@pytest.fixture
def folder(splade_tiny, tmp_path):
    """A writable copy of SPLADE-tiny."""
    copy = tmp_path / "model"
    shutil.copytree(splade_tiny, copy)
    return copy


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    save_file(edit(weights), folder / "model.safetensors", metadata={"format": "pt"})


def vectors(model):
    tokens = model.tokenizer(["a small test", "of sparse vectors"], padding=True, return_tensors="pt")
    return model.document_encoder(tokens["input_ids"], tokens["attention_mask"]).detach()


def build(**settings):
    run = {name: settings.pop(name) for name in list(settings) if name in ("matching_type", "tokenizer_type")}
    return build_splade(ModelConfig(**({"model_type_or_dir": TINY} | settings)), RunConfig(**run)).eval()


def test_package_path_and_folder_give_the_same_model(folder):
    torch.testing.assert_close(vectors(build()), vectors(build(model_type_or_dir=str(folder))))


def test_frozen_document_encoder_has_no_dropout_in_training():
    model = build(model_type_or_dir_q=TINY, freeze_d_model=True).train()
    assert model.query_encoder.training and not any(part.training for part in model.document_encoder.modules())


def test_shared_encoder_is_one_object():
    model = build()
    assert model.shared and model.vocab_size == 30522
    assert not build(model_type_or_dir_q=TINY).shared


def test_missing_head_is_an_error(folder):
    edit_weights(folder, lambda weights: {k: v for k, v in weights.items() if "transform" not in k})
    with pytest.raises(ModelError, match="lacks weights of a masked-language model.*transform"):
        load_masked_lm(str(folder))


def test_model_without_any_head_is_an_error(folder):
    edit_weights(folder, lambda weights: {k: v for k, v in weights.items() if not k.startswith("cls.")})
    with pytest.raises(ModelError, match="would be"):
        load_masked_lm(str(folder))


def test_weights_of_another_shape_are_an_error(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelError, match="shape|size"):
        load_masked_lm(str(folder))


def test_truncated_weights_are_an_error(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="does not load"):
        load_masked_lm(str(folder))


def test_missing_tokenizer_is_an_error(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_masked_lm(str(folder))


def test_tokenizer_of_another_model_is_an_error(folder, tmp_path):
    other = small_tokenizer_folder(tmp_path / "other")
    shutil.copy(other / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(ModelError, match="belongs to another model"):
        load_masked_lm(str(folder))


def test_tokenizer_type_with_another_vocabulary_is_an_error(folder, tmp_path):
    other = small_tokenizer_folder(tmp_path / "other")
    with pytest.raises(ModelError, match="another vocabulary"):
        load_masked_lm(str(folder), tokenizer_name=str(other))


def small_tokenizer_folder(folder):
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    BertConfig(vocab_size=7, hidden_size=8, num_attention_heads=1, intermediate_size=8).save_pretrained(folder)
    return folder


def test_missing_folder_is_named_in_full(tmp_path):
    with pytest.raises(ModelError, match=f"{tmp_path}/nothing"):
        model_folder(str(tmp_path / "nothing"))


def test_folder_without_model_hints_at_the_right_one(folder):
    with pytest.raises(ModelError, match=f"perhaps you mean {folder}"):
        model_folder(str(folder.parent))


def test_unreachable_hub_is_an_error_within_seconds(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="naver/no-such-model.*cannot be reached.*local folder"):
        model_folder("naver/no-such-model")


def test_sentence_transformers_folder_must_agree_on_pooling(folder, tmp_path):
    save_splade(build(model_type_or_dir=str(folder)), tmp_path / "saved")
    saved = str(tmp_path / "saved" / "model")
    torch.testing.assert_close(vectors(build(model_type_or_dir=saved)), vectors(build()))
    with pytest.raises(ModelError, match="init_dict.agg=max"):
        build(model_type_or_dir=saved, agg="sum")


def test_saved_model_loads_with_transformers_and_sentence_transformers(tmp_path):
    from sentence_transformers import SparseEncoder
    from transformers import AutoModelForMaskedLM

    model = build()
    save_splade(model, tmp_path, max_length=7)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "model").config.vocab_size == 30522
    encoder = SparseEncoder(str(tmp_path / "model"))
    theirs = encoder.encode(["a small test", "of sparse vectors"]).to_dense()
    torch.testing.assert_close(theirs, vectors(model), atol=1e-5, rtol=0)
    # What lies beyond max_length does not count there, either.
    long, cut = encoder.encode(["one two three four five", "one two three four five six"]).to_dense()
    assert torch.equal(long, cut)


def test_a_saved_tokenizer_keeps_nothing_of_the_texts_before(tmp_path):
    model = build()
    model.tokenizer(["one two three", "four"], truncation=True, max_length=3, padding=True)
    save_splade(model, tmp_path)
    saved = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert saved["truncation"] is None and saved["padding"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matching_type": "splade_topk"}, "top_d"),
        ({"matching_type": "splade_lexical"}, "lexical_type"),
        ({"top_d": 5}, "splade_topk"),
        ({"matching_type": "splade_doc", "model_type_or_dir_q": TINY}, "no query model"),
        ({"freeze_d_model": True}, "nothing to train"),
    ],
)
def test_contradicting_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(**settings)


def test_splade_doc_queries_are_their_own_tokens():
    model = build(matching_type="splade_doc")
    tokens = model.query_tokenizer(["small small test"], return_tensors="pt")
    dense = model.query_encoder(tokens["input_ids"], tokens["attention_mask"])[0]
    found = model.tokenizer.convert_ids_to_tokens(dense.nonzero()[:, 0].tolist())
    assert sorted(found) == ["small", "test"] and set(dense.tolist()) == {0.0, 1.0}
    sparse = model.query_encoder.encode(tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(torch.from_numpy(sparse.to_dense())[0], dense)


def test_weights_of_query_tokens_may_be_on_another_device_than_the_tokens():
    tokens = torch.tensor([[2, 7, 7, 3]])
    limited = TokenLookupEncoder(9, [2, 3], torch.arange(9.0), top_k=1)
    assert limited(tokens, torch.ones_like(tokens)).nonzero().tolist() == [[0, 7]]
    assert limited.to("meta")(tokens, torch.ones_like(tokens)).device.type == "meta"  # as on a GPU


def test_topk_and_lexical_limits():
    model = build(matching_type="splade_topk", top_d=5, top_q=3)
    tokens = model.tokenizer(["a small test of sparse vectors"], return_tensors="pt")
    inputs = tokens["input_ids"], tokens["attention_mask"]
    assert (model.document_encoder(*inputs) > 0).sum() == 5 and (model.query_encoder(*inputs) > 0).sum() == 3
    lexical = build(matching_type="splade_lexical", lexical_type="query")
    own = set(tokens["input_ids"][0].tolist())
    assert set(lexical.query_encoder(*inputs)[0].nonzero()[:, 0].tolist()) <= own
    assert not set(lexical.document_encoder(*inputs)[0].nonzero()[:, 0].tolist()) <= own


def test_encoders_that_differ_in_limits_only_are_saved_once(tmp_path):
    model = build(matching_type="splade_lexical", lexical_type="query")
    assert model.shares_weights and not model.shared
    save_splade(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    overrides = ["config.matching_type=splade_lexical", "init_dict.lexical_type=query"]
    experiment = compose_experiment("config_default", overrides)
    (tmp_path / "training_done.json").write_text(json.dumps({"settings": asdict(experiment)}))
    again = load_checkpoint(tmp_path, experiment)
    tokens = model.tokenizer(["a small test"], return_tensors="pt")
    inputs = tokens["input_ids"], tokens["attention_mask"]
    for name in ("query_encoder", "document_encoder"):
        torch.testing.assert_close(getattr(again.eval(), name)(*inputs), getattr(model, name)(*inputs))


def test_limits_that_sentence_transformers_does_not_know_are_not_promised_to_it(tmp_path):
    save_splade(build(matching_type="splade_topk", top_d=5), tmp_path)
    assert not (tmp_path / "model" / "modules.json").exists()


def test_learned_token_weights_survive_saving(tmp_path):
    model = build(matching_type="splade_idf")
    with torch.no_grad():
        model.query_encoder.weights[2000:3000] = 2.5
    save_splade(model, tmp_path)
    experiment = compose_experiment("config_default", ["config.matching_type=splade_idf"])
    (tmp_path / "training_done.json").write_text(json.dumps({"settings": asdict(experiment)}))
    again = load_checkpoint(tmp_path, experiment)
    ids, mask = torch.arange(1990, 2010)[None], torch.ones(1, 20, dtype=torch.long)
    torch.testing.assert_close(again.query_encoder(ids, mask), model.query_encoder(ids, mask))


def test_a_checkpoint_is_used_as_what_it_was_trained_as(tmp_path):
    save_splade(build(), tmp_path)
    trained = compose_experiment("config_default")
    (tmp_path / "training_done.json").write_text(json.dumps({"settings": asdict(trained)}))
    other = compose_experiment("config_default", ["init_dict.agg=sum"])
    with pytest.raises(
        ConfigError, match="was trained with init_dict.agg=max, the configuration says sum.*config.yaml"
    ):
        load_checkpoint(tmp_path, other)


def test_missing_checkpoint_is_an_error(tmp_path):
    experiment = compose_experiment("config_default", [f"config.checkpoint_dir={tmp_path}/none"])
    with pytest.raises(ModelError, match="no such folder.*pretrained_no_yamlconfig"):
        load_for_inference(experiment)
    experiment.config.checkpoint_dir = str(tmp_path)
    with pytest.raises(ModelError, match="holds no trained model"):
        load_for_inference(experiment)
    (tmp_path / "model_ckpt").mkdir()
    with pytest.raises(ModelError, match="has not ended"):
        load_for_inference(experiment)


def test_fingerprint_sees_a_vocabulary_in_another_order(folder):
    text = (folder / "tokenizer.json").read_text()
    first, second = '"cat":', '"dog":'
    assert text.count(first) == text.count(second) == 1
    (folder / "tokenizer.json").write_text(text.replace(first, "\0").replace(second, first).replace("\0", second))
    assert build(model_type_or_dir=str(folder)).fingerprint().differences(build().fingerprint().as_dict()) == [
        "tokenizer"
    ]


@pytest.mark.parametrize("missing", ["all", "tokenizer", "agg"])
def test_an_index_that_does_not_say_what_made_it_is_refused(tmp_path, missing):
    model = SparseModel(build())
    known = {name: value for name, value in model.fingerprint.as_dict().items() if name != missing}
    metadata = {"fingerprint": known} if missing != "all" else {}
    index = SimpleNamespace(path=tmp_path / "index.h5", metadata=metadata, vocab_size=model.vocab_size)
    with pytest.raises(IndexFileError, match="not the same.*None in the index.*index again"):
        check_made_by(index, model)
    index.metadata = {"fingerprint": model.fingerprint.as_dict()}
    check_made_by(index, model)


def test_fingerprint_sees_weights_and_settings():
    model = build()
    same, other = build().fingerprint(), build(matching_type="splade_topk", top_d=5)
    assert model.fingerprint() == same
    assert set(same.differences(other.fingerprint().as_dict())) == {"matching_type", "document_encoder"}
    lexical = build(matching_type="splade_lexical", lexical_type="document")
    same_name, both = model.fingerprint().as_dict(), build(matching_type="splade_lexical", lexical_type="query")
    assert set(same.differences(lexical.fingerprint().as_dict())) == {"matching_type", "document_encoder"}
    assert both.fingerprint().differences(lexical.fingerprint().as_dict()) == ["document_encoder"]
    assert same.differences(same_name | {"tokenizer": "other"}) == ["tokenizer"]
    assert same.differences({}) == list(same_name)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    assert model.fingerprint().differences(same.as_dict()) == ["document_encoder"]
