"""Training a dense bi-encoder: the trainer, the data and the losses of the sparse ones, without sparsity."""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, set_seed

from splade.config.schema import Experiment
from splade.datasets.runs import Run
from splade.distributed import first_process_first, n_processes, on_first_process
from splade.encoding.dense_model import DEFAULT_MAX_LENGTH, DenseModel
from splade.encoding.lengths import check_max_length
from splade.errors import ConfigError
from splade.losses import WeightedLoss, parse_regularizers, score_batch
from splade.models.dense_encoder import DenseBiEncoder, DenseSettings, load_dense, write_dense_settings
from splade.models.encoder import EncoderSettings
from splade.models.pretrained import save_tokenizer
from splade.models.save import MODEL_FOLDER, saving
from splade.retrieval.dense import search_dense
from splade.training.collator import Batch, Collator
from splade.training.data import TrainingData, load_training_data
from splade.training.objective import RegularizedObjective, gather_rows
from splade.training.run import TrainResult, run_training
from splade.training.trainer import SpladeTrainer
from splade.training.validation import FullRankingData, Validation

SCALE_OF_COSINES = 20.0
"""A softmax tells numbers between -1 and 1 hardly apart. sentence-transformers has the same default."""


class DenseObjective(RegularizedObjective[Batch]):
    """The loss of the dot products of a batch, shared by all processes.

    Args:
        loss: of scores.
        score_scale: the dot products are multiplied by it.
    """

    def __init__(self, loss: WeightedLoss, score_scale: float = 1.0):
        super().__init__([])
        self.loss = loss
        self.score_scale = score_scale

    def __call__(
        self, model: nn.Module, batch: Batch, step: float, gather: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise, and named detached terms."""
        queries, documents = model(batch["queries"], batch["documents"])
        queries = queries * self.score_scale
        teacher, n_local = batch.get("teacher"), len(queries)
        if gather and n_processes() > 1:
            documents = torch.cat(
                [gather_rows(part) for part in (documents[:n_local], documents[n_local:]) if len(part)]
            )
            queries, teacher = gather_rows(queries), gather_rows(teacher) if teacher is not None else None
        total, terms = self.loss(score_batch(queries, documents, self.loss.needs_batch, teacher))
        return total, {name: value.detach() for name, value in terms.items()}


class DenseValidation(Validation):
    """Measures a dense model: the loss on held-out examples, and the metrics of an exact search."""

    tokenizer: PreTrainedTokenizerBase

    def _ranking(self, network: nn.Module, data: FullRankingData) -> dict[str, float]:
        assert isinstance(network, DenseBiEncoder), "nothing else is retrieved with"
        model = DenseModel(
            "validation", network.encoder, self.tokenizer, DenseSettings(max_length=self.max_length), self.batch_size
        )

        def measure() -> dict[str, float]:
            dataset = data.dataset
            vectors = model.encode_documents(text for _, text in dataset.documents)
            doc_ids = [doc_id for doc_id, _ in dataset.documents]
            queries = model.encode_queries(dataset.queries.values())
            rows, scores = search_dense(queries, vectors, min(data.top_k, len(doc_ids)))
            run: Run = {
                query_id: {doc_ids[row]: float(score) for row, score in zip(own, values, strict=True)}
                for query_id, own, values in zip(dataset.queries, rows.tolist(), scores.tolist(), strict=True)
            }
            return data.protocol.evaluate(run, dataset.qrels or {})

        return on_first_process(measure)


def prepare_dense_training(experiment: Experiment) -> tuple[SpladeTrainer, TrainingData]:
    """Open the data, load the model, and return the trainer of both, nothing of it trained yet.

    Raises:
        ConfigError: settings that contradict each other, or that have no meaning for a dense model.
        DataError: wrong files.
        ModelError: a model that cannot be loaded.
    """
    run, init, dense = experiment.config, experiment.init_dict, experiment.dense
    if parse_regularizers(run.regularizer):
        raise ConfigError("config.regularizer makes vectors sparse; for config.matching_type=dense set it to null")
    if init.model_type_or_dir_q is not None or init.lora.rank is not None:
        raise ConfigError("config.matching_type=dense trains one encoder for both sides, all of its weights")
    loss = WeightedLoss.parse(run.loss, run.augment_pairs == "in_batch_negatives")
    set_seed(run.seed)
    data = first_process_first(lambda: load_training_data(experiment, loss))
    loaded = load_dense(str(init.model_type_or_dir), dense.pooling, dense.normalise)
    if run.gradient_checkpointing:
        loaded.encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    max_length = run.max_length or loaded.settings.max_length or DEFAULT_MAX_LENGTH
    check_max_length(loaded.encoder, max_length, loaded.name, "document")
    prompts = {"query": run.prompt_q, "document": run.prompt_d}
    own = {side: loaded.settings.prompts.get(side, "") if said is None else said for side, said in prompts.items()}
    model = DenseBiEncoder(loaded.encoder, loaded.tokenizer, own, loaded.name)
    settings = EncoderSettings(prompt=own["document"]), EncoderSettings(prompt=own["query"])
    collator = Collator(loaded.tokenizer, loaded.tokenizer, max_length, *settings)
    validation = None
    if data.held_out is not None or data.full_ranking is not None:
        precision = torch.float16 if run.fp16 else torch.bfloat16 if run.bf16 else None
        validation = DenseValidation(
            data.held_out, collator, data.full_ranking, max_length, run.eval_batch_size, precision
        )
        validation.tokenizer = loaded.tokenizer
    scale = dense.score_scale or (SCALE_OF_COSINES if loaded.encoder.normalise else 1.0)
    objective = DenseObjective(loss, scale)
    return SpladeTrainer(run, data.schedule, model, data.sampler, collator, objective, validation), data


def train_dense(experiment: Experiment) -> TrainResult:
    """Train a dense model and save it in `config.checkpoint_dir`, as `train_model` does a sparse one."""

    def save(trainer: SpladeTrainer, folder: Path) -> None:
        save_dense(trainer.splade, folder, trainer.collator.max_length)

    return run_training(experiment, "train", prepare_dense_training, lambda trainer: None, save)


def save_dense(model: DenseBiEncoder, folder: Path, max_length: int) -> None:
    """Write `model/`, which transformers loads, and sentence-transformers as a SentenceTransformer."""
    temporary = folder / f".{MODEL_FOLDER}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with saving(folder):
        model.encoder.model.save_pretrained(temporary)
        save_tokenizer(model.tokenizer, temporary)
        write_dense_settings(temporary, model.encoder, max_length, model.prompts)
    shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)
    temporary.rename(folder / MODEL_FOLDER)
