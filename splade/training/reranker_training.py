"""Training a reranker: the trainer, the data and the losses of the encoders, over scores of query and document."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, set_seed
from typing_extensions import NotRequired, TypedDict

from splade.config.schema import Experiment
from splade.datasets.training_sets import TrainingExample
from splade.distributed import first_process_first
from splade.encoding.lengths import own_max_length
from splade.encoding.pairs import PairTokenizer, check_pair_length
from splade.encoding.reranker import DEFAULT_MAX_LENGTH, padded_rows
from splade.errors import ConfigError
from splade.losses import BatchScores, WeightedLoss
from splade.models.pair_scorer import KINDS, PairScorer, load_reranker
from splade.models.pretrained import save_tokenizer
from splade.models.save import MODEL_FOLDER, saving
from splade.training.data import TrainingData, load_training_data
from splade.training.objective import RegularizedObjective
from splade.training.trainer import SpladeTrainer
from splade.training.validation import Validation

_SHOWN = 60


class PairBatch(TypedDict):
    """A tokenised batch of B queries, each with its positive and n negatives.

    Attributes:
        pairs: tensors of the rows, (B * (1 + n), length) int64 each, query by query, the positive first.
        teacher: (B, 1 + n) float32 scores, where the examples carry some.
    """

    pairs: dict[str, Tensor]
    n_documents: int
    teacher: NotRequired[Tensor]


class PairCollator:
    """Tokenises examples for a reranker; documents are cut, queries never."""

    def __init__(self, tokenizer: PairTokenizer):
        self.tokenizer = tokenizer
        self.max_length = tokenizer.max_length

    def __call__(self, examples: Sequence[TrainingExample]) -> PairBatch:
        """Return the batch of B examples."""
        rows = []
        for example in examples:
            documents = [(text,) for text in (example.positive, *example.negatives)]
            rows += self.tokenizer.rows(example.query[:_SHOWN], example.query, documents)
        tensors = padded_rows(rows, self.tokenizer.tokenizer)
        batch: PairBatch = {"pairs": tensors, "n_documents": 1 + len(examples[0].negatives)}
        if examples[0].positive_score is not None:
            scores = [[example.positive_score, *(example.negative_scores or [])] for example in examples]
            batch["teacher"] = torch.tensor(scores, dtype=torch.float32)
        return batch


class RerankerObjective(RegularizedObjective[PairBatch]):
    """The loss of a batch of scores.

    A reranker scores a query with its own documents only: what a loss says of the whole batch, it says of these. So
    every process takes the mean over its own queries.
    """

    def __init__(self, loss: WeightedLoss):
        super().__init__([])
        self.loss = loss

    def __call__(
        self, model: nn.Module, batch: PairBatch, step: float, gather: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise, and named detached terms."""
        own = model(batch["pairs"]).view(-1, batch["n_documents"])
        total, terms = self.loss(BatchScores(own, _own_alone(own), batch.get("teacher")))
        return total, {name: value.detach() for name, value in terms.items()}


def _own_alone(own: Tensor) -> Tensor:
    """Arrange (B, 1 + n) scores as those of a batch, (B, B * (1 + n)), in which other queries' documents score -inf."""
    n_queries, n_documents = own.shape
    every = own.new_full((n_queries, n_queries * n_documents), float("-inf"))
    rows = torch.arange(n_queries, device=own.device)
    every[rows, rows] = own[:, 0]
    for j in range(1, n_documents):
        every[rows, n_queries + rows * (n_documents - 1) + j - 1] = own[:, j]
    return every


def prepare_reranker_training(experiment: Experiment) -> tuple[SpladeTrainer, TrainingData]:
    """Open the data, load the model, and return the trainer of both, nothing of it trained yet.

    Raises:
        ConfigError: settings that contradict each other, or that have no meaning for a reranker.
        DataError: wrong files.
        ModelError: a model that cannot be loaded.
    """
    run, init = experiment.config, experiment.init_dict
    if not KINDS[run.reranker_type].trainable:
        kinds = ", ".join(name for name, kind in KINDS.items() if kind.trainable)
        raise ConfigError(f"config.reranker_type={run.reranker_type} is for splade.rerank; trained can be {kinds}")
    if experiment.data.VALIDATION_FULL_RANKING is not None and run.monitoring_ckpt != "loss":
        raise ConfigError("a reranker is validated by its loss on held-out examples: set config.monitoring_ckpt=loss")
    if run.encode_at_a_time is not None:
        raise ConfigError(
            "config.encode_at_a_time is for losses over a whole batch, which a reranker has not: set it to null, and "
            "config.gradient_accumulation_steps instead"
        )
    loss = WeightedLoss.parse(run.loss)
    set_seed(run.seed)
    data = first_process_first(lambda: load_training_data(experiment, loss))
    loaded = load_reranker(str(init.model_type_or_dir), run.reranker_type, new_head=True)
    if run.gradient_checkpointing:
        loaded.scorer.model.gradient_checkpointing_enable({"use_reentrant": False})
    most = own_max_length(loaded.scorer, loaded.tokenizer)
    max_length = run.max_length or min(most or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
    check_pair_length(max_length, most, loaded.name)
    pairs = PairTokenizer(loaded.tokenizer, loaded.kind, max_length, run.prompt_q, run.prompt_d)
    collator, objective = PairCollator(pairs), RerankerObjective(loss)
    validation = None
    if data.held_out is not None:
        precision = torch.float16 if run.fp16 else torch.bfloat16 if run.bf16 else None
        validation = Validation(data.held_out, collator, None, max_length, run.eval_batch_size, precision)
    trainer = SpladeTrainer(run, data.schedule, loaded.scorer, data.sampler, collator, objective, validation)
    return trainer, data


def save_reranker(scorer: PairScorer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write `model/`, which transformers loads (and sentence-transformers, if it is a cross-encoder)."""
    temporary = folder / f".{MODEL_FOLDER}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with saving(folder):
        scorer.save(temporary)
        save_tokenizer(tokenizer, temporary)
    shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)
    temporary.rename(folder / MODEL_FOLDER)
