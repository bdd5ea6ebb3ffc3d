"""Model folders that lie, are broken, or bring code: a ModelError that names file and fault, and nothing is run."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from splade.errors import ModelError, SpladeError
from splade.models.pretrained import load_masked_lm

LAYER = "bert.encoder.layer.1.output.dense"


@pytest.fixture(scope="module")
def original(tiny_model):
    """A small BERT with its tokenizer, as transformers saves it."""
    return tiny_model()


@pytest.fixture
def folder(original, tmp_path):
    """A copy to break."""
    return shutil.copytree(original, tmp_path / "model")


def edit_json(path, **changes):
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(settings | changes))


def edit_weights(folder, added, removed=()):
    weights = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name not in removed}
    save_file(weights | added, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_masked_lm(str(folder))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "auto_map"),
    [
        ("config.json", {"AutoModelForMaskedLM": "evil.Model", "AutoConfig": "evil.Config"}),
        ("config.json", {"AutoConfig": "somebody/elsewhere--evil.Config"}),
        ("config.json", {}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Tokenizer", None]}),
    ],
)
@pytest.mark.parametrize("model_type", ["bert", "unknown-to-transformers"])
def test_code_of_a_model_folder_is_never_run_nor_asked_about(folder, monkeypatch, capsys, file, auto_map, model_type):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (folder / "evil.py").write_text("raise SystemExit('run')\n")
    edit_json(folder / "config.json", model_type=model_type)
    edit_json(folder / file, auto_map=auto_map)
    refused(folder, f"{file} has an auto_map.*never run")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_code_from_the_hub_is_not_fetched(folder, key):
    edit_json(folder / "config.json", **{key: "kernels-community/flash-attn"})
    refused(folder, f"{key}=kernels-community/flash-attn names code to fetch")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, r"does not take: bert\.encoder\.layer\.1\..* and 12 more"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0: must be an integer from 1 to 1000"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1: must be"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers=1000000: must be"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers=1.5: must be"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers='2': must be"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True: must be"),
        ({"num_hidden_layers": [2]}, r"num_hidden_layers=\[2\]: must be"),
        ({"num_hidden_layers": 3}, "lacks weights"),
        ({"num_attention_heads": 0}, "num_attention_heads=0: must be"),
        ({"num_attention_heads": 5}, "does not load"),
        ({"hidden_size": -16}, "hidden_size=-16: must be"),
        ({"hidden_size": 32}, "another shape|does not load"),
        ({"intermediate_size": 10**12}, "intermediate_size=1000000000000: must be"),
        ({"vocab_size": 0}, "vocab_size=0: must be"),
        ({"vocab_size": 300}, "another shape|does not load"),
        ({"max_position_embeddings": -5}, "max_position_embeddings=-5: must be"),
        ({"hidden_act": "exec"}, "does not load"),
        ({"hidden_act": 7}, "does not load"),
        ({"hidden_dropout_prob": 5}, "does not load"),
        ({"layer_norm_eps": "small"}, "does not load"),
        ({"model_type": "no-such-type"}, "does not load"),
        ({"model_type": "gpt2"}, "does not load|lacks"),
        ({"model_type": "distilbert"}, "lacks weights"),
        ({"model_type": 5}, "does not load"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights"),
        ({"quantization_config": {"quant_method": "no-such-method"}}, "quantised weights"),
        ({"quantization_config": 5}, "quantised weights"),
        ({"pad_token_id": 399}, "pads with token 399"),
    ],
)
def test_settings_that_do_not_belong_to_the_weights(folder, changes, message):
    edit_json(folder / "config.json", **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"[1, 2]", b'"bert"', b"5", b"null", b"{", b"\xff\xfe", b'{"model_type": ', b"\x00" * 50],
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json", "modules.json"])
def test_files_that_are_no_json_objects(folder, file, text):
    (folder / file).write_bytes(text)
    if (file, text) == ("modules.json", b"[]"):
        load_masked_lm(str(folder))
    else:
        refused(folder, ".")


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"model": None},
        {"model": {"type": "WordPiece", "vocab": {"a": -1}}},
        {"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}},
        {"version": "9.9", "model": {"type": "Evil"}},
        {"model": {"type": "WordPiece", "vocab": [1, 2], "unk_token": 5}},
    ],
)
def test_broken_tokenizer(folder, text):
    (folder / "tokenizer.json").write_text(json.dumps(text))
    refused(folder, "tokenizer")


TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.MLMTransformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": "sentence_transformers.models.SpladePooling"}


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ({"a": 1}, None, "must be a list of objects"),
        ([1], None, "must be a list of objects"),
        ([None], None, "must be a list of objects"),
        ([[]], None, "must be a list of objects"),
        ([{}], None, "must be a list of objects"),
        ([{"type": 5, "path": ""}], None, "must be a list of objects"),
        ([TRANSFORMER | {"path": None}], None, "must be a list of objects"),
        ([POOLING | {"path": "../outside"}], None, "leaves the folder"),
        ([POOLING | {"path": "/etc"}], None, "leaves the folder"),
        ([POOLING | {"path": "1_SpladePooling/../../x"}], None, "leaves the folder"),
        ([TRANSFORMER, POOLING | {"type": "os.system"}], None, "module system is not one of a SPLADE model"),
        ([TRANSFORMER, POOLING], None, "no such file"),
        ([TRANSFORMER, POOLING], "", "not JSON"),
        ([TRANSFORMER, POOLING], "[]", "must be a JSON object"),
        ([TRANSFORMER, POOLING], "7", "must be a JSON object"),
        ([TRANSFORMER, POOLING], '{"pooling_strategy": 5}', "pooling_strategy is 5; allowed are max, sum"),
        ([TRANSFORMER, POOLING], '{"pooling_strategy": ["max"]}', "allowed are max, sum"),
        ([TRANSFORMER, POOLING], '{"pooling_strategy": "mean"}', "allowed are max, sum"),
        ([TRANSFORMER, POOLING], '{"pooling_strategy": "sum"}', "set init_dict.agg=sum"),
    ],
)
def test_malformed_sentence_transformers_folder(folder, modules, pooling, message):
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_SpladePooling").mkdir()
    if pooling is not None:
        (folder / "1_SpladePooling" / "config.json").write_text(pooling)
    with pytest.raises(ModelError, match=message):
        load_masked_lm(str(folder))


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.0.adapter.down.weight",
        "bert.encoder.layer.0.attention.self.query.lora_A.weight",
        "bert.encoder.layer.7.output.dense.weight",
        "bert.embeddings.extra.weight",
        "cls.predictions.transform.gate.weight",
    ],
)
def test_weights_that_the_architecture_does_not_take(folder, name):
    edit_weights(folder, {name: torch.ones(2, 2)})
    refused(folder, f"does not take: {name}")


@pytest.mark.parametrize(
    "name",
    [
        "bert.pooler.dense.weight",
        "bert.embeddings.position_ids",
        "cls.seq_relationship.weight",
        "classifier.weight",
        "dense.linear.weight",
        "qa_outputs.bias",
    ],
)
def test_weights_that_do_not_change_vectors_are_passed_over(folder, original, name):
    edit_weights(folder, {name: torch.ones(2, 2)})
    found, expected = (load_masked_lm(str(place)).model.state_dict() for place in (folder, original))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def as_old_file(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_old_weight_file_loads(folder, original):
    weights = load_file(folder / "model.safetensors")
    as_old_file(folder, b"")
    torch.save(weights, folder / "pytorch_model.bin")
    found, expected = (load_masked_lm(str(place)).model.state_dict() for place in (folder, original))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("container", ["zip", "plain"])
def test_pickle_that_runs_code_is_refused(folder, tmp_path, container):
    content = {LAYER: Evil(tmp_path / "run")}
    as_old_file(folder, pickle.dumps(content))
    if container == "zip":
        torch.save(content, folder / "pytorch_model.bin")
    refused(folder, "does not load")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"x" * 100, pickle.dumps([1]), pickle.dumps({})])
def test_old_weight_file_that_is_none(folder, content):
    as_old_file(folder, content)
    refused(folder, ".")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}", b"\x10\0\0\0\0\0\0\0" + b"{" * 16])
def test_weight_file_that_is_none(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, ".")


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../../x.safetensors"}}', '{"weight_map": 5}', ""],
)
def test_broken_list_of_weight_files(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, ".")


@pytest.mark.parametrize("file", ["special_tokens_map.json", "added_tokens.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["", "[]", '{"pad_token": {"content": 5}}'])
def test_other_files_end_in_an_error_or_in_the_same_model(folder, original, file, text):
    (folder / file).write_text(text)
    try:
        found = load_masked_lm(str(folder))
    except SpladeError:
        return
    expected = load_masked_lm(str(original))
    assert found.tokenizer("a small test") == expected.tokenizer("a small test")
