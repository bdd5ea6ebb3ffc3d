"""Decoder language models as backbones: what they see, what is pooled, adapters, and large vocabularies."""

import csv
import sys

import numpy as np
import pytest
import torch
import transformers
from tiny_models import SMALL, write_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer

import splade
from splade.config import compose_experiment
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError, ModelError
from splade.evaluation.collapse import find_collapse
from splade.models.adapters import ADAPTER_CONFIG
from splade.models.causal_lm import CausalLMEncoder
from splade.models.load import build_splade, load_checkpoint
from splade.storage.atomic import read_json, write_json
from splade.tasks.train import train

TOPICS = {"tea": "tea of the river", "snow": "cold snow", "river": "the river is cold", "bread": "what bread"}
DOCUMENTS = [(topic, text) for topic, text in TOPICS.items()]
TEXTS = ["what is the light of stars", "tea", "cold water of the river is snow"]
READINGS = [("causal", False), ("causal", True), ("bidirectional", False), ("bidirectional", True)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of random decoders, made once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = write_model(name, tmp_path_factory.mktemp(name), initializer_range=0.1)
        return made[name]

    return make


@pytest.fixture
def experiment(tmp_path):
    """Compose ten steps of training from a model folder."""
    texts = list(TOPICS.items())
    lines = [f"what is {topic}\t{text}\t{texts[i - 1][1]}" for i, (topic, text) in enumerate(texts)]
    (tmp_path / "raw.tsv").write_text("\n".join(lines * 8) + "\n")

    def make(folder, **changes):
        settings = {
            "init_dict.model_type_or_dir": folder,
            "config.checkpoint_dir": tmp_path / "out",
            "config.nb_iterations": 10,
            "config.warmup_steps": 0,
            "config.lr": 3e-2,
            "config.train_batch_size": 4,
            "config.max_length": 16,
            "config.train_monitoring_freq": 1,
            "config.regularizer": "null",
            "data.TRAIN.DATASET_PATH": tmp_path / "raw.tsv",
            "data.VALIDATION_SIZE_FOR_LOSS": 0,
            "data.VALIDATION_FULL_RANKING": "null",
        }
        return compose_experiment("config_default", [f"{name}={value}" for name, value in (settings | changes).items()])

    return make


def reading(attention, repeat_text):
    return {"init_dict.attention": attention, "init_dict.repeat_text": repeat_text}


def textbook(folder, text, attention, repeat_text):
    """The formula for one text: logits of the text's own tokens, of the second copy if there is one."""
    tokens = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    ids = torch.tensor([tokens * 2 if repeat_text else tokens])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    everything = torch.zeros(1, 1, ids.shape[1], ids.shape[1])  # nothing is hidden
    mask = everything if attention == "bidirectional" else torch.ones_like(ids)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[0]
    first = len(tokens) + 1 if repeat_text else 1  # the token that begins a text is not pooled
    return torch.log1p(torch.relu(logits[first:])).amax(0).numpy()


@pytest.mark.parametrize(("attention", "repeat_text"), READINGS)
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "granite"])
def test_vectors_are_those_of_the_formula(name, attention, repeat_text, folders, experiment):
    folder = folders(name)
    settings = experiment(folder, **reading(attention, repeat_text))
    model = SparseModel(build_splade(settings.init_dict, settings.config), max_length=16)
    assert model.network.document_encoder._decoder is not None
    vectors = model.encode_documents(TEXTS).to_dense()
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, textbook(folder, text, attention, repeat_text), atol=1e-5)
        np.testing.assert_allclose(vector, model.encode_documents(text).to_dense()[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "attention", "repeat_text"), [("llama", "causal", True), ("qwen2", "bidirectional", False)]
)
def test_a_decoder_from_training_to_search(name, attention, repeat_text, folders, experiment, tmp_path):
    train(experiment(folders(name), **reading(attention, repeat_text)))
    with open(tmp_path / "out" / "training_perf.txt") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 10 and np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3])
    model = splade.load(tmp_path / "out", max_length=16)
    vectors = model.encode_documents(TOPICS.values())
    assert find_collapse(vectors) is None
    folder = tmp_path / "out" / "model"
    expected = [textbook(folder, text, attention, repeat_text) for text in TOPICS.values()]
    np.testing.assert_allclose(vectors.to_dense(), expected, atol=1e-5)
    again = splade.load(folder, max_length=16)  # the folder alone says how the model reads
    made = splade.Index.build(tmp_path / "index", again, DOCUMENTS)
    hits = splade.Retriever(again, made).search("what is tea", top_k=4)
    scores = vectors.to_dense() @ model.encode_queries("what is tea").to_dense()[0]
    found = {hit.doc_id: hit.score for hit in hits}
    np.testing.assert_allclose([found[topic] for topic in TOPICS], scores, rtol=1e-5)
    assert not (folder / "modules.json").exists()  # sentence-transformers reads masked-language models only


def test_how_a_model_reads_is_part_of_its_fingerprint(folders, experiment):
    prints = set()
    for attention, repeat_text in READINGS:
        settings = experiment(folders("llama"), **reading(attention, repeat_text))
        prints.add(build_splade(settings.init_dict, settings.config).fingerprint().document_encoder)
    assert len(prints) == len(READINGS)


def test_what_cannot_be_is_refused(folders, experiment, tmp_path):
    bert = experiment(write_model("bert", tmp_path / "bert"), **{"init_dict.repeat_text": True})
    with pytest.raises(ConfigError, match="for decoder language models"):
        build_splade(bert.init_dict, bert.config)
    opt = write_model("opt", tmp_path / "opt")
    both = experiment(opt, **{"init_dict.attention": "bidirectional"})
    with pytest.raises(ModelError, match="cannot attend in both directions"):
        build_splade(both.init_dict, both.config)
    with pytest.raises(ModelError, match="positions for at most 32 tokens"):  # of 64, for two copies
        settings = experiment(folders("gpt2"), **{"init_dict.repeat_text": True})
        SparseModel(build_splade(settings.init_dict, settings.config), max_length=33)


def test_prompts_are_put_before_texts_and_saved(folders, experiment, tmp_path):
    prompts = {"config.prompt_q": "'what is '", "config.prompt_d": "'the river '"}
    settings = experiment(folders("llama"), **prompts | {"config.nb_iterations": 1})
    train(settings)
    folder = tmp_path / "out" / "model"
    for model in (splade.load(tmp_path / "out", max_length=16), splade.load(folder, max_length=16)):
        for encode, prompt in ((model.encode_queries, "what is "), (model.encode_documents, "the river ")):
            expected = textbook(folder, prompt + "tea", "causal", False)
            np.testing.assert_allclose(encode("tea").to_dense()[0], expected, atol=1e-5)
    settings.config.prompt_q = None
    with pytest.raises(ConfigError, match="was trained with config.prompt_q=what is"):
        load_checkpoint(tmp_path / "out", settings)


LORA = {"init_dict.lora.rank": 4, "init_dict.lora.dropout": 0, "config.lr": 0.1}


@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_adapters_are_trained_and_saved(save, folders, experiment, tmp_path):
    folder = folders("qwen2")
    before = splade.load(folder, max_length=16).encode_documents(TEXTS).to_dense()
    settings = experiment(folder, **LORA, **{"init_dict.lora.save": save})
    train(settings)
    sizes = [file.stat().st_size for file in (tmp_path / "out" / "model_ckpt").glob("*/splade.safetensors")]
    assert max(sizes) < (folder / "model.safetensors").stat().st_size  # the frozen weights are in none
    written = tmp_path / "out" / "model"
    assert (written / ADAPTER_CONFIG).exists() == (save == "adapter")
    vectors = splade.load(tmp_path / "out", max_length=16).encode_documents(TEXTS).to_dense()
    assert np.abs(vectors - before).max() > 0.01
    np.testing.assert_allclose(vectors, [textbook(written, text, "causal", False) for text in TEXTS], atol=1e-5)
    frozen = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())["model.embed_tokens.weight"]
    model = load_checkpoint(tmp_path / "out", settings).document_encoder.model
    torch.testing.assert_close(model.model.embed_tokens.weight, frozen)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_a_run_with_adapters_resumes(folders, experiment, tmp_path, monkeypatch):
    changes = LORA | {"config.nb_iterations": 4, "config.record_frequency": 2}
    whole = experiment(folders("llama"), **changes)
    train(whole)
    expected = splade.load(tmp_path / "out", max_length=16).encode_documents(TEXTS).to_dense()
    parts = experiment(folders("llama"), **changes | {"config.checkpoint_dir": tmp_path / "parts"})
    with monkeypatch.context() as patch:
        patch.setattr("splade.training.run.check_trained", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            train(parts)
    train(parts)
    np.testing.assert_array_equal(
        splade.load(tmp_path / "parts", max_length=16).encode_documents(TEXTS).to_dense(), expected
    )


def test_the_preset_trains_two_steps(folders, tmp_path):
    folder = folders("qwen2")
    changes = {"init_dict.model_type_or_dir": folder, "config.checkpoint_dir": tmp_path, "config.nb_iterations": 2}
    changes |= {"config.max_length": 8, "config.train_monitoring_freq": 1, "data.VALIDATION_SIZE_FOR_LOSS": 4}
    settings = compose_experiment("techniques/config_decoder", [f"{name}={value}" for name, value in changes.items()])
    assert train(settings).steps == 2
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    before = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    moved = [name for name, weight in trained.state_dict().items() if not torch.equal(weight, before[name])]
    assert moved and all("_proj" in name for name in moved)
    assert trained.config.splade_repeat_text


def test_adapters_of_another_model_are_refused(folders, experiment, tmp_path):
    train(experiment(folders("qwen2"), **LORA | {"config.nb_iterations": 1, "init_dict.lora.save": "adapter"}))
    written = tmp_path / "out" / "model"
    settings = read_json(written / ADAPTER_CONFIG)
    write_json(written / ADAPTER_CONFIG, settings | {"base_model_name_or_path": str(folders("gpt2"))})
    with pytest.raises(ModelError, match="adapters .* do not fit"):
        splade.load(written)
    write_json(written / ADAPTER_CONFIG, settings | {"base_model_name_or_path": str(written)})
    with pytest.raises(ModelError, match="names its own folder"):
        splade.load(written)


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return made


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_no_tensor_is_as_large_as_batch_times_length_times_vocabulary(name, monkeypatch):
    """Gemma 2 caps its logits, so that they cannot be made piece by piece: they are made for one text at a time."""
    n_terms, batch, length = 128_000, 6, 24
    size = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": n_terms}
    kind = {"llama": transformers.LlamaConfig, "gemma2": transformers.Gemma2Config}[name]
    encoder = CausalLMEncoder(AutoModelForCausalLM.from_config(kind(**size)), special_token_ids=[1], repeat_text=True)
    ids = torch.randint(3, n_terms, (batch, length))
    whole = encoder.eval()(ids, torch.ones_like(ids)).detach()
    monkeypatch.setattr("splade.models.masked_lm.MOST_LOGITS", 1)
    with LargestTensor() as largest:
        weights = encoder.train()(ids, torch.ones_like(ids))
        weights.sum().backward()
        vectors = encoder.eval().encode(ids, torch.ones_like(ids))
    of_a_text = 2 * length * n_terms  # two copies
    of_a_batch = 2 * batch * n_terms  # rows and columns of its entries
    assert largest.size <= (of_a_text if name == "gemma2" else max(of_a_batch, 16 * n_terms))
    torch.testing.assert_close(weights.detach(), whole)
    np.testing.assert_allclose(vectors.to_dense(), whole.numpy(), atol=1e-5)


def test_bf16_training_with_attention_in_both_directions(folders, experiment, tmp_path):
    changes = {"config.bf16": True, "config.nb_iterations": 2} | reading("bidirectional", True)
    train(experiment(folders("llama"), **changes))
    assert find_collapse(splade.load(tmp_path / "out", max_length=16).encode_documents(TEXTS)) is None
