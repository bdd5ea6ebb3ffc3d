"""Every masked-language model of transformers: build, train a step, save, load again, load elsewhere."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from splade.config import compose_experiment
from splade.models.load import build_splade, load_checkpoint
from splade.tasks.train import train
from splade.training.run import freeze_unused_parameters

WORDS = "the a of what is which stars tea snow bread river sleep cold water light".split()
N_TERMS = 64  # more than the tokenizer has tokens, as many published models
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PAD_ZERO = {"pad_token_id": 0}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}

# name: (class of the model, special tokens in the order of their ids, settings of its configuration)
ARCHITECTURES = {
    "albert": ("Albert", BERT_TOKENS, SMALL | NO_DROPOUT | {"embedding_size": 8}),
    "bert": ("Bert", BERT_TOKENS, SMALL | NO_DROPOUT),
    "big_bird": ("BigBird", BERT_TOKENS, SMALL | NO_DROPOUT | {"attention_type": "original_full"}),
    "camembert": ("Camembert", ROBERTA_TOKENS, SMALL | NO_DROPOUT | {"pad_token_id": 1}),
    "convbert": (
        "ConvBert",
        BERT_TOKENS,
        SMALL | NO_DROPOUT | {"embedding_size": 16, "head_ratio": 1, "pad_token_id": 0},
    ),
    "deberta": ("Deberta", BERT_TOKENS, SMALL | NO_DROPOUT),
    "deberta_v2": ("DebertaV2", BERT_TOKENS, SMALL | NO_DROPOUT | {"relative_attention": True}),
    "distilbert": (
        "DistilBert",
        BERT_TOKENS,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0, "attention_dropout": 0.0},
    ),
    "electra": ("Electra", BERT_TOKENS, SMALL | NO_DROPOUT | {"embedding_size": 8}),
    "ernie": ("Ernie", BERT_TOKENS, SMALL | NO_DROPOUT),
    "modernbert": ("ModernBert", BERT_TOKENS, SMALL | {"pad_token_id": 0, "global_attn_every_n_layers": 2}),
    "mpnet": ("MPNet", ROBERTA_TOKENS, SMALL | NO_DROPOUT | {"pad_token_id": 1}),
    "nystromformer": (
        "Nystromformer",
        BERT_TOKENS,
        SMALL | NO_DROPOUT | PAD_ZERO | {"segment_means_seq_len": 8, "num_landmarks": 8},
    ),
    "roberta": ("Roberta", ROBERTA_TOKENS, SMALL | NO_DROPOUT | {"pad_token_id": 1}),
    "xlm_roberta": ("XLMRoberta", ROBERTA_TOKENS, SMALL | NO_DROPOUT | {"pad_token_id": 1}),
}


def make_tokenizer(special):
    """A tokenizer of whole words with the special tokens of a family of models."""
    vocabulary = {token: i for i, token in enumerate([*special.values(), *WORDS])}
    vocabulary |= {f"w{i}": i for i in range(len(vocabulary), N_TERMS - 2)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece()
    cls, sep = special["cls"], special["sep"]
    pairs = [(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    inner.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", special_tokens=pairs)
    names = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture(params=ARCHITECTURES)
def folder(request, tmp_path):
    """A folder with a tiny random model of one architecture and its tokenizer."""
    class_name, special, settings = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{class_name}Config")(vocab_size=N_TERMS, max_position_embeddings=64, **settings)
    model = getattr(transformers, f"{class_name}ForMaskedLM")(config)
    with torch.no_grad():  # a fresh output bias is zero, and a missing one would go unnoticed
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.shape == (N_TERMS,):
                parameter.uniform_(-0.1, 0.1)
    model.save_pretrained(tmp_path / "start")
    make_tokenizer(special).save_pretrained(tmp_path / "start")
    return tmp_path / "start"


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
