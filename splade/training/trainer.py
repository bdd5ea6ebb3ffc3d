"""Training on top of `transformers.Trainer`: our objective, our validation, and checkpoints that are whole."""

import logging
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback, ProgressCallback

from splade.config.schema import RunConfig
from splade.errors import ConfigError, SpladeError
from splade.models.splade import Splade
from splade.training.callbacks import PerformanceFiles, Progress, TensorBoard, ValidateAtEnd
from splade.training.checkpoints import mark_whole
from splade.training.objective import Objective
from splade.training.validation import Validation

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "splade.safetensors"
DAY_SECONDS = 24 * 3600


class SpladeTrainer(Trainer):
    """A trainer of a `Splade` model.

    Args:
        objective: what is minimised.
        validation: what is measured every `record_frequency` steps; null: nothing.
        kwargs: as for `transformers.Trainer`.
    """

    def __init__(self, *, objective: Objective, validation: Validation | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.splade: Splade = kwargs["model"]
        self.objective: Objective = objective
        self.validation: Validation | None = validation
        self.model_accepts_loss_kwargs = False
        self._sums: dict[str, torch.Tensor] = {}
        self._batches = 0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the objective of one batch and remember its terms for the next log line."""
        loss, terms = self.objective(model, inputs, self.state.global_step)
        if not torch.isfinite(loss):
            values = ", ".join(f"{name}={value.item():.4g}" for name, value in terms.items())
            raise SpladeError(
                f"the loss is {loss.item()} at step {self.state.global_step} ({values}). Lower config.lr or the "
                "regulariser's lambda, use bf16 instead of fp16, and check the training data's scores."
            )
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._batches += 1
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every loss term since the last training log line."""
        if "loss" in logs and self._batches:
            logs |= {name: (total / self._batches).item() for name, total in self._sums.items()}
            self._sums, self._batches = {}, 0
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure validation loss and full-ranking metrics; the first process does, all get the numbers."""
        metrics: list[dict[str, float] | None] = [None]
        if self.is_world_process_zero() and self.validation is not None:
            training = self.splade.training
            self.splade.eval()
            values = self.validation(self.splade, self.objective, self.state.global_step)
            self.splade.train(training)
            metrics = [{f"{metric_key_prefix}_{name}": value for name, value in values.items()}]
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(metrics, src=0)
        result = metrics[0] or {}
        self.log(dict(result))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, result)
        return result

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_model(self.splade, str(folder / WEIGHTS_FILE))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.world_size > 1:
            torch.distributed.barrier()  # every process has written its random state
        if self.args.should_save:
            step = self.state.global_step
            mark_whole(Path(str(self.args.output_dir)) / f"checkpoint-{step}", step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.splade, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            load_weights(self.splade, Path(self.state.best_model_checkpoint))


def load_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Load the weights of a training checkpoint into a model of the same architecture."""
    safetensors.torch.load_model(model, str(checkpoint / WEIGHTS_FILE))


def make_trainer(
    run: RunConfig, model: Any, stream: Any, collator: Any, objective: Objective, validation: Validation | None
) -> SpladeTrainer:
    """Build the trainer that `config` describes.

    Raises:
        ConfigError: settings that this machine or these processes cannot run.
    """
    folder = Path(str(run.checkpoint_dir))
    arguments = training_arguments(run, folder, validation is not None)
    callbacks = [PerformanceFiles(folder), TensorBoard(folder / "tensorboard"), Progress(), ValidateAtEnd()]
    if run.early_stopping:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=run.patience))
    trainer = SpladeTrainer(
        objective=objective,
        validation=validation,
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=stream,
        eval_dataset=[] if validation is not None else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(run: RunConfig, folder: Path, validates: bool) -> TrainingArguments:
    """Translate `config` into the arguments of `transformers.Trainer`."""
    cuda = torch.cuda.is_available()
    if run.fp16 and not cuda:
        raise ConfigError("config.fp16=true needs a CUDA device; on a CPU use config.bf16=true or neither")
    schedule = "steps" if validates else "no"
    return TrainingArguments(
        output_dir=str(folder / "model_ckpt"),
        per_device_train_batch_size=batch_size_per_process(run),
        max_steps=run.nb_iterations,
        learning_rate=run.lr,
        weight_decay=run.weight_decay,
        warmup_steps=run.warmup_steps,
        lr_scheduler_type="linear",
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        max_grad_norm=run.max_grad_norm,
        fp16=run.fp16,
        bf16=run.bf16,
        use_cpu=not cuda,
        seed=run.seed,
        train_sampling_strategy="sequential",
        logging_steps=run.train_monitoring_freq,
        logging_nan_inf_filter=False,
        eval_strategy=schedule,
        eval_steps=run.record_frequency,
        eval_on_start=validates,
        save_strategy="steps",
        save_steps=run.record_frequency,
        save_total_limit=3,
        load_best_model_at_end=validates,
        metric_for_best_model=run.monitoring_ckpt if validates else None,
        greater_is_better=(run.monitoring_ckpt != "loss") if validates else None,
        dataloader_num_workers=2 if cuda else 0,
        remove_unused_columns=False,
        report_to="none",
        ddp_timeout=DAY_SECONDS,  # the first process validates while the others wait
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        disable_tqdm=True,
        log_level="error",
        accelerator_config={"even_batches": False},
    )


def batch_size_per_process(run: RunConfig, n_processes: int | None = None) -> int:
    """Divide `train_batch_size` among the processes that `torchrun` started."""
    import os

    n_processes = int(os.environ.get("WORLD_SIZE", "1")) if n_processes is None else n_processes
    if run.train_batch_size % n_processes:
        raise ConfigError(
            f"config.train_batch_size={run.train_batch_size} cannot be divided among {n_processes} processes"
        )
    return run.train_batch_size // n_processes
