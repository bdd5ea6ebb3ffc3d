"""Every masked-language model of transformers: build, train a step, save, load again, load elsewhere."""

import pytest
import torch
from tiny_models import ARCHITECTURES, N_TERMS, write_model
from transformers import AutoModelForMaskedLM, AutoTokenizer

from splade.config import compose_experiment
from splade.models.load import build_splade, load_checkpoint
from splade.tasks.train import train
from splade.training.run import freeze_unused_parameters


@pytest.fixture(params=ARCHITECTURES)
def folder(request, tmp_path):
    """A folder with a tiny random model of one architecture and its tokenizer."""
    return write_model(request.param, tmp_path / "start")


def write_triplets(path):
    path.mkdir()
    lines = ["what is tea\ttea of the river\tsnow is cold", "cold snow\tsnow is cold water\tthe light of stars"] * 4
    (path / "raw.tsv").write_text("\n".join(lines) + "\n")


TEXTS = ["what is the light of stars", "tea", "cold water of the river is snow"]


def encode(model):
    tokens = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval().document_encoder(tokens["input_ids"], tokens["attention_mask"])


@pytest.mark.parametrize("agg", ["max", "sum"])
def test_trains_and_loads_everywhere(folder, tmp_path, agg):
    from sentence_transformers import SparseEncoder

    write_triplets(tmp_path / "triplets")
    settings = {
        "init_dict.model_type_or_dir": folder,
        "init_dict.agg": agg,
        "config.checkpoint_dir": tmp_path / "out",
        "config.nb_iterations": 2,
        "config.warmup_steps": 0,
        "config.lr": 1e-2,
        "config.train_batch_size": 4,
        "config.max_length": 32,
        "data.TRAIN.DATASET_PATH": tmp_path / "triplets",
        "data.VALIDATION_SIZE_FOR_LOSS": 2,
    }
    experiment = compose_experiment("config_default", [f"{name}={value}" for name, value in settings.items()])
    before = build_splade(experiment.init_dict, experiment.config)
    assert before.vocab_size == N_TERMS
    train(experiment)
    after = load_checkpoint(tmp_path / "out", experiment)
    vectors = encode(after)
    assert vectors.shape == (len(TEXTS), N_TERMS) and not torch.allclose(vectors, encode(before))
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")(TEXTS, padding=True, return_tensors="pt")
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "model").eval()
    with torch.no_grad():
        logits = plain(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits
    weights = torch.log1p(torch.relu(logits)) * tokens["attention_mask"][:, :, None]
    expected = weights.amax(1) if agg == "max" else weights.sum(1)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
    theirs = SparseEncoder(str(tmp_path / "out" / "model"), device="cpu").encode(TEXTS).to_dense()
    torch.testing.assert_close(vectors, theirs, atol=1e-5, rtol=1e-4)


# Parameters of the language model that no logit depends on.
UNUSED = {"big_bird": {"pooler.weight", "pooler.bias"}, "deberta_v2": {"rel_embeddings.weight"}}


def test_parameters_without_influence_are_frozen(folder, request):
    """Otherwise several processes would wait for gradients that never come."""
    experiment = compose_experiment("config_default", [f"init_dict.model_type_or_dir={folder}"])
    model = build_splade(experiment.init_dict, experiment.config)
    freeze_unused_parameters(model)
    name = request.node.callspec.params["folder"]
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert {".".join(name.split(".")[-2:]) for name in frozen} == UNUSED.get(name, set())
    assert all(parameter.grad is None for parameter in model.parameters())
    tokens = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    batch = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    sum(vectors.sum() for vectors in model.train()(batch, batch)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_special_tokens_are_those_of_the_tokenizer(folder):
    settings = [f"init_dict.model_type_or_dir={folder}", "config.matching_type=splade_doc"]
    experiment = compose_experiment("config_default", settings)
    model = build_splade(experiment.init_dict, experiment.config)
    tokens = model.query_tokenizer(["cold tea"], return_tensors="pt")
    found = model.query_encoder(tokens["input_ids"], tokens["attention_mask"])[0].nonzero()[:, 0].tolist()
    assert sorted(model.tokenizer.convert_ids_to_tokens(found)) == ["cold", "tea"]
