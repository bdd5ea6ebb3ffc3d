"""A sequence-to-sequence model that writes a query for a document, such as doc2query (arXiv 1904.08375)."""

from collections.abc import Sequence

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from splade.distributed import pick_device
from splade.errors import ModelError
from splade.models.hub import model_folder
from splade.models.pretrained import load_tokenizer
from splade.progress import progress

MAX_DOCUMENT_TOKENS, MAX_QUERY_TOKENS = 256, 48
TOP_K = 10
"""Each next token is drawn from the so many likeliest ones: the best alone would be a dull query."""


class QueryGenerator:
    """Writes one query per document.

    Args:
        model: with an encoder for the document and a decoder for the query.
        tokenizer: of both.
        batch_size: documents at a time.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 16):
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size

    @classmethod
    def load(cls, name: str) -> "QueryGenerator":
        """Load a model of the hub or a folder onto this process's GPU, or the CPU.

        Raises:
            ModelError: there is none, or it does not write.
        """
        folder = model_folder(name)
        try:
            model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        except (ValueError, OSError) as error:
            raise ModelError(
                f"adapt.query_generator={name}: no sequence-to-sequence model (T5, BART ...): {error}"
            ) from error
        return cls(model.to(pick_device()), load_tokenizer(folder, name))

    @torch.inference_mode()
    def generate(self, documents: Sequence[str], seed: int) -> list[str]:
        """Return a query for each document, drawn with `seed`; empty where the model writes nothing."""
        queries: list[str] = []
        device = next(self.model.parameters()).device
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for start in progress(range(0, len(documents), self.batch_size), "writing queries", unit="batch"):
                texts = list(documents[start : start + self.batch_size])
                inputs = self.tokenizer(
                    texts, padding=True, truncation=True, max_length=MAX_DOCUMENT_TOKENS, return_tensors="pt"
                )
                tokens = self.model.generate(
                    input_ids=inputs["input_ids"].to(device),
                    attention_mask=inputs["attention_mask"].to(device),
                    do_sample=True,
                    top_k=TOP_K,
                    max_new_tokens=MAX_QUERY_TOKENS,
                )
                queries += [" ".join(text.split()) for text in self.tokenizer.batch_decode(tokens, True)]
        return queries
