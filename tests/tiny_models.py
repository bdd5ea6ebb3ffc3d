"""Tiny random models of every architecture, with tokenizers of whole words."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

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

LLAMA_TOKENS = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}  # no padding token, as published
# Decoders without a masked-language model.
DECODERS = {
    "llama": ("Llama", LLAMA_TOKENS, SMALL | {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2", LLAMA_TOKENS, SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "opt": (
        "OPT",
        LLAMA_TOKENS,
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 16},
    ),
    "gpt2": ("GPT2", LLAMA_TOKENS, {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "granite": ("Granite", LLAMA_TOKENS, SMALL | {"num_key_value_heads": 2, "logits_scaling": 4.0}),
}


def make_tokenizer(special: dict[str, str], n_terms: int = N_TERMS) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words with the special tokens of a family of models; two terms of the model stay unused."""
    vocabulary = {token: i for i, token in enumerate([*special.values(), *WORDS])}
    vocabulary |= {f"w{i}": i for i in range(len(vocabulary), n_terms - 2)}
    if "bos" in special:
        return make_byte_tokenizer(special)
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece()
    cls, sep = special["cls"], special["sep"]
    pairs = [(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    inner.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", special_tokens=pairs)
    names = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def make_byte_tokenizer(special: dict[str, str]) -> PreTrainedTokenizerFast:
    """A tokenizer of byte pairs, as decoders have, that puts a token before each text and none behind it."""
    inner = Tokenizer(models.BPE(unk_token=special["unk"]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=N_TERMS - 2, special_tokens=list(special.values()), show_progress=False)
    inner.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    bos = special["bos"]
    inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{f"{name}_token": token for name, token in special.items()}
    )


def write_model(name: str, folder: Path, n_terms: int = N_TERMS, **more: float) -> Path:
    """Write a random model of an architecture, with `more` settings of its configuration, and its tokenizer."""
    class_name, special, settings = (ARCHITECTURES | DECODERS)[name]
    kind = "ForMaskedLM" if name in ARCHITECTURES else "LMHeadModel" if name == "gpt2" else "ForCausalLM"
    torch.manual_seed(0)
    sizes: dict[str, object] = {"vocab_size": n_terms, "max_position_embeddings": 64}
    if "bos" in special:
        sizes |= {"bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{class_name}Config")(**sizes | settings | more)
    model = getattr(transformers, f"{class_name}{kind}")(config)
    with torch.no_grad():  # a fresh output bias is zero, and a missing one would go unnoticed
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias") and parameter.shape == (n_terms,):
                parameter.uniform_(-0.1, 0.1)
    model.save_pretrained(folder)
    make_tokenizer(special, n_terms).save_pretrained(folder)
    return folder
