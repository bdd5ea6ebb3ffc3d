"""A few steps of sentence-transformers' own trainer with SpladeLoss, each one timed."""

import tempfile
import time
from typing import Any

from bench_common import seconds
from datasets import Dataset
from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sampler import DefaultBatchSampler
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback


class Clock(TrainerCallback):
    """Notes how long each step takes, and its loss."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.durations: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the GPU and stop the clock."""
        seconds(lambda: None, self.device)
        self.durations.append(time.perf_counter() - self.began)

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        """Note the loss."""
        if logs is not None and "loss" in logs:
            self.losses.append(logs["loss"])


class ConstantWeights(SpladeRegularizerWeightSchedulerCallback):
    """Regularises with full weight from the first step."""

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Undo the warm-up, which is a share of all steps."""
        self.warmup_steps = 0  # type: ignore[assignment]
        super().on_step_begin(*args, **kwargs)


class InOrder(SparseEncoderTrainer):
    """Takes the batches as they come."""

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> Any:
        """Return a sampler that does not shuffle."""
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def train(
    model: SparseEncoder,
    batches: list[list[tuple[str, str, str]]],
    *,
    lambda_q: float,
    lambda_d: float,
    lr: float,
    bf16: bool,
    device: str,
) -> tuple[list[float], list[float]]:
    """Take one step per batch of triplets; return the seconds and the loss of each."""
    columns = zip(*[triplet for batch in batches for triplet in batch], strict=True)
    dataset = Dataset.from_dict(dict(zip(("anchor", "positive", "negative"), columns, strict=True)))
    ranking = SparseMultipleNegativesRankingLoss(model)
    loss = SpladeLoss(model, ranking, document_regularizer_weight=lambda_d, query_regularizer_weight=lambda_q)
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SparseEncoderTrainingArguments(
            folder,
            per_device_train_batch_size=len(batches[0]),
            max_steps=len(batches),
            learning_rate=lr,
            weight_decay=0.0,
            lr_scheduler_type="constant",
            bf16=bf16,
            use_cpu=device == "cpu",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        callbacks = [ConstantWeights(loss), clock]
        trainer = InOrder(model, arguments, train_dataset=dataset, loss=loss, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.durations, clock.losses
