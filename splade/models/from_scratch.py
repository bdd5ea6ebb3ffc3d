"""A model with random weights, and a tokenizer learned from a collection."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from splade.errors import DataError

SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
MARK = "\u2581"  # stands before each word while merges are learned
HEAD_SIZE = 64  # numbers per attention head, as in BERT


def write_random_model(
    folder: Path, texts: Iterable[str], vocab_size: int, n_layers: int, hidden_size: int, max_length: int, seed: int
) -> None:
    """Write a BERT of random weights with a tokenizer of WordPieces that `texts` are made of, lower-cased.

    Args:
        folder: appears when it is complete.
        texts: what the tokenizer is learned from.
        vocab_size: most tokens; fewer where the texts have no more.
        n_layers: transformer layers.
        hidden_size: width of the layers.
        max_length: positions.
        seed: of the weights.

    Raises:
        DataError: the texts hold no word.
    """
    tokenizer = learn_tokenizer(texts, vocab_size, max_length)
    if len(tokenizer) <= len(SPECIAL_TOKENS):
        raise DataError("the collection holds no word from which a tokenizer could be learned")
    n_heads = next(n for n in range(max(1, hidden_size // HEAD_SIZE), 0, -1) if hidden_size % n == 0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def learn_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn a lower-casing WordPiece tokenizer, the same one from the same texts.

    The trainer of WordPieces breaks ties at random. So byte-pair merges are learned, of words with a mark at their
    beginning: a merge with the mark becomes a piece that begins a word, any other one a piece that goes on. Each
    character of the texts can do both, so that none of their words is unknown.

    Args:
        texts: what it is learned from.
        vocab_size: most tokens, special ones included; the characters are always there.
        max_length: what the tokenizer says of itself.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    mark = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), mark])
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False))
    learned = sorted(learner.get_vocab().items(), key=lambda entry: entry[1])
    characters = [token for token, _ in learned if len(token) == 1 and token != MARK]
    pieces = [token[1:] if token.startswith(MARK) else f"##{token}" for token, _ in learned]
    always = [*SPECIAL_TOKENS.values(), *characters, *(f"##{character}" for character in characters)]
    kept = list(dict.fromkeys(piece for piece in [*always, *pieces] if piece))[: max(vocab_size, len(always))]
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(kept)}, unk_token=SPECIAL_TOKENS["unk"]))
    inner.normalizer, inner.pre_tokenizer = learner.normalizer, pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    ends = [(SPECIAL_TOKENS[name], kept.index(SPECIAL_TOKENS[name])) for name in ("sep", "cls")]
    inner.post_processor = processors.BertProcessing(*ends)
    names = {f"{name}_token": token for name, token in SPECIAL_TOKENS.items()}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=max_length, **names)
