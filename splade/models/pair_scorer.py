"""Models that score a query with a document, or with two: cross-encoders, rankT5, monoT5, duoT5, pairwise prompting.

All take one row of token ids per query and document (two documents, where the model compares), and give one number.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from splade.errors import ConfigError, ModelError
from splade.models.hub import model_folder
from splade.models.pretrained import load_tokenizer
from splade.models.transformer import load_transformer, transformer_config

RerankerType = Literal["cross-encoder", "rankT5", "monoT5", "duoT5", "PairwisePrompt"]
HEAD_FILE = "rank_head.safetensors"
_NEW_HEAD = r"^(classifier|score|pre_classifier|head|pooler)\b"


@dataclass(frozen=True)
class RerankerKind:
    """What a type of reranker is.

    Attributes:
        prompt_q: default template of the query.
        prompt_d: default template of the document; with two places where documents are compared.
        answers: what a language model answers for "relevant" (or "the first") and for "not" (or "the second").
        pairwise: whether it compares two documents.
        trainable: whether `splade.train_reranker` trains it.
    """

    prompt_q: str = "{}"
    prompt_d: str = "{}"
    answers: tuple[str, str] | None = None
    pairwise: bool = False
    trainable: bool = False


KINDS: dict[RerankerType, RerankerKind] = {
    "cross-encoder": RerankerKind(trainable=True),
    "rankT5": RerankerKind("Query: {}", "Document: {}", trainable=True),
    "monoT5": RerankerKind("Query: {}", "Document: {} Relevant:", ("true", "false"), trainable=True),
    "duoT5": RerankerKind("Query: {}", "Document0: {} Document1: {} Relevant:", ("true", "false"), pairwise=True),
    "PairwisePrompt": RerankerKind(
        'Given a query "{}", which of the following two passages is more relevant to the query?',
        "Passage A: {} Passage B: {} Output Passage A or Passage B:",
        ("Passage A", "Passage B"),
        pairwise=True,
    ),
}


class PairScorer(nn.Module, ABC):
    """Scores rows of token ids; higher is more relevant (or: the first document is).

    Attributes:
        model: of transformers.
    """

    model: PreTrainedModel

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return (rows,) float32 scores of `input_ids`, `attention_mask` and, with some models, `token_type_ids`."""

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, folder: Path) -> None:
        """Write the weights in Hugging Face's format."""
        self.model.save_pretrained(folder)


class SequenceScorer(PairScorer):
    """The single label of a model for sequence classification (arXiv 1901.04085)."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits."""
        scores: Tensor = self.model(**inputs, return_dict=True).logits[:, 0].float()
        return scores


class EncoderHeadScorer(PairScorer):
    """RankT5 with an encoder (arXiv 2210.10634): a linear layer over the state of the first token."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        self.head = nn.Linear(int(model.config.hidden_size), 1)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs of the layer."""
        states = self.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], return_dict=True
        ).last_hidden_state
        scores: Tensor = self.head(states[:, 0])[:, 0].float()
        return scores

    def save(self, folder: Path) -> None:
        """Write the encoder, and the layer beside it."""
        self.model.save_pretrained(folder)
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()},
            folder / HEAD_FILE,
        )


class AnswerScorer(PairScorer):
    """How much likelier one answer of a language model is than another: the difference of their first logits to differ.

    monoT5's score, the log-probability of "true" among "true" and "false" (arXiv 2003.06713), is its log-sigmoid.

    Args:
        model: encoder-decoder or decoder.
        begin: ids that both answers begin with.
        better: id that only the answer "relevant", or "the first", goes on with.
        worse: the same of the other answer.
    """

    def __init__(self, model: PreTrainedModel, begin: list[int], better: int, worse: int):
        super().__init__()
        self.model = model
        self.begin, self.better, self.worse = begin, better, worse

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return log-sigmoid of the difference."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        begin = torch.tensor([self.begin] * len(ids), dtype=torch.int64, device=ids.device).reshape(len(ids), -1)
        if self.model.config.is_encoder_decoder:
            start = torch.full_like(ids[:, :1], self.model.config.decoder_start_token_id)
            logits = self.model(
                input_ids=ids, attention_mask=mask, decoder_input_ids=torch.cat([start, begin], 1), return_dict=True
            ).logits[:, -1]
        else:
            lengths = mask.sum(1)
            rows = [torch.cat([own[:length], more]) for own, length, more in zip(ids, lengths, begin, strict=True)]
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            ends = lengths + begin.shape[1] - 1
            longer = torch.arange(padded.shape[1], device=ids.device) <= ends[:, None]
            logits = self.model(input_ids=padded, attention_mask=longer.long(), return_dict=True).logits
            logits = logits[torch.arange(len(ids), device=ids.device), ends]
        scores: Tensor = functional.logsigmoid((logits[:, self.better] - logits[:, self.worse]).float())
        return scores


@dataclass(frozen=True)
class LoadedReranker:
    """A reranker with its tokenizer, as the user named it."""

    name: str
    kind: RerankerType
    scorer: PairScorer
    tokenizer: PreTrainedTokenizerBase


def load_reranker(name: str, kind: RerankerType, new_head: bool = False) -> LoadedReranker:
    """Load a reranker.

    Args:
        name: hub name, folder, or `pkg://package/path`.
        kind: what it is.
        new_head: the head may be missing, since it is to be trained.

    Raises:
        ModelError: no such model, weights missing, or several labels.
    """
    folder = model_folder(name)
    tokenizer = load_tokenizer(folder, name)
    scorer: PairScorer
    if kind == "cross-encoder":
        scorer = _sequence_scorer(folder, name, new_head)
    elif kind == "rankT5":
        scorer = EncoderHeadScorer(load_transformer(AutoModelForTextEncoding, folder, name, "a T5 encoder"))
        if not new_head or (folder / HEAD_FILE).is_file():
            _load_head(scorer.head, folder, name)
    else:
        scorer = _answer_scorer(folder, name, kind, tokenizer)
    return LoadedReranker(name, kind, scorer.eval(), tokenizer)


def _sequence_scorer(folder: Path, name: str, new_head: bool) -> SequenceScorer:
    config = transformer_config(folder, name)
    architectures = config.architectures if isinstance(config.architectures, list) else []
    trained = any("SequenceClassification" in str(one) for one in architectures)
    if trained and config.num_labels != 1:
        raise ModelError(
            f"model '{name}' has {config.num_labels} output labels; a cross-encoder that ranks has one. Give another "
            "model, or train one from it: python -m splade.train_reranker"
        )
    if not trained and not new_head:
        raise ModelError(
            f"model '{name}' ({', '.join(map(str, architectures)) or '?'}) has no head for one label; train it first: "
            "python -m splade.train_reranker"
        )
    pattern = "^$" if trained else _NEW_HEAD
    what = "a model for sequence classification"
    config.num_labels = 1
    return SequenceScorer(load_transformer(AutoModelForSequenceClassification, folder, name, what, pattern, config))


def _load_head(head: nn.Linear, folder: Path, name: str) -> None:
    try:
        head.load_state_dict(load_file(folder / HEAD_FILE))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"model '{name}': {folder / HEAD_FILE}: no head of a rankT5 ({str(error)[:200]}); train it first: "
            "python -m splade.train_reranker config.reranker_type=rankT5"
        ) from error


def _answer_scorer(folder: Path, name: str, kind: RerankerType, tokenizer: PreTrainedTokenizerBase) -> AnswerScorer:
    config = transformer_config(folder, name)
    if not config.is_encoder_decoder and kind in ("monoT5", "duoT5"):
        raise ModelError(f"model '{name}' is no encoder-decoder; config.reranker_type={kind} needs a T5")
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = load_transformer(auto_class, folder, name, "a language model that answers")
    better, worse = (_ids(tokenizer, answer) for answer in KINDS[kind].answers or ("", ""))
    same = next((i for i, (one, other) in enumerate(zip(better, worse, strict=False)) if one != other), None)
    if same is None:
        raise ModelError(f"model '{name}': its tokenizer does not tell the answers {KINDS[kind].answers} apart")
    return AnswerScorer(model, better[:same], better[same], worse[same])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_prompts(kind: RerankerType, prompt_q: str, prompt_d: str) -> None:
    """Check that templates have their places for the texts.

    Raises:
        ConfigError: one lacks a `{}`, or has too many.
    """
    for key, prompt, wanted in (("prompt_q", prompt_q, 1), ("prompt_d", prompt_d, 2 if KINDS[kind].pairwise else 1)):
        if prompt.count("{}") != wanted:
            text = "the text" if wanted == 1 else "the two documents"
            example = KINDS[kind].prompt_q if key == "prompt_q" else KINDS[kind].prompt_d
            raise ConfigError(
                f"config.{key}={prompt!r}: it needs {wanted} {{}}, the place of {text}, and has {prompt.count('{}')}; "
                f"for example {example!r}"
            )
    if kind == "cross-encoder" and not prompt_d.endswith("{}"):
        raise ConfigError(
            f"config.prompt_d={prompt_d!r}: for a cross-encoder the document must come last, as in 'doc: {{}}'"
        )
