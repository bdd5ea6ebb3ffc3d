"""Training on top of `transformers.Trainer`: our objective, our validation, and checkpoints that are whole."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from splade.config.schema import RunConfig
from splade.distributed import LONGEST_WAIT, n_processes, on_first_process
from splade.errors import ConfigError, SpladeError
from splade.models.splade import Splade
from splade.training.callbacks import (
    TENSORBOARD_FOLDER,
    Progress,
    TensorBoard,
    TrainingFile,
    ValidateAtEnd,
    ValidationFile,
    is_training,
)
from splade.training.checkpoints import checkpoint_path, keep_checkpoints, mark_whole, whole_steps
from splade.training.early_stopping import EarlyStopping
from splade.training.objective import Objective
from splade.training.run_folder import CHECKPOINTS_FOLDER
from splade.training.sampler import TrainingStream
from splade.training.validation import Validation

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "splade.safetensors"
CHECKPOINTS_KEPT = 3  # the last ones; the best one is kept besides


class SpladeTrainer(Trainer):
    """A trainer of a `Splade` model.

    Args:
        objective: what is minimised.
        validation: what is measured every `record_frequency` steps; null: nothing.
        stopping: when to stop early; null: never.
        kwargs: as for `transformers.Trainer`.
    """

    def __init__(
        self, *, objective: Objective, validation: Validation | None, stopping: EarlyStopping | None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.splade: Splade = kwargs["model"]
        self.stream: TrainingStream = kwargs["train_dataset"]
        self.objective: Objective = objective
        self.validation: Validation | None = validation
        self.stopping: EarlyStopping | None = stopping
        self.checkpoints = Path(str(self.args.output_dir))
        self.model_accepts_loss_kwargs = False
        self._terms = RunningMeans()
        self._speed = Speedometer(0)

    def train_from(self, step: int | None) -> None:
        """Train from the start, or go on from the checkpoint of a step; the model ends with its best weights."""
        checkpoint = None if step is None else checkpoint_path(self.checkpoints, step)
        if checkpoint is not None and self._stopped_at(checkpoint):
            self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        else:
            self.args.eval_on_start = self.validation is not None and checkpoint is None
            self._speed = Speedometer(step or 0)
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        load_weights(self.splade, checkpoint_path(self.checkpoints, self.best_step))

    @property
    def best_step(self) -> int:
        """The step with the best validation; the last one without validation."""
        best = self.state.best_global_step
        return self.state.global_step if best is None else best

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
        self._terms.add(terms)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to a training log line the mean of every loss term since the last one, and the speed."""
        if is_training(logs):
            logs |= self._terms.take() | {"steps_per_second": self._speed.take(self.state.global_step)}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure validation loss and full-ranking metrics; the first process does, all get the numbers."""
        with self._speed.paused():
            result = on_first_process(self._validate)
        self.log({f"{metric_key_prefix}_{name}": value for name, value in result.items()})
        row = self.state.log_history[-1]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, row)
        return row

    def _validate(self) -> dict[str, float]:
        assert self.validation is not None, "the trainer asks for validation only where there is some"
        self.splade.eval()
        values = self.validation(self.splade, self.objective)
        self.splade.train()
        return values

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.stream)  # the stream has its order already

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(str(output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(self.splade, str(folder / WEIGHTS_FILE))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self._speed.paused():
            super()._save_checkpoint(model, trial)
            if self.args.world_size > 1:
                torch.distributed.barrier()  # every process has written its random state
            if self.args.should_save:
                mark_whole(checkpoint_path(self.checkpoints, self.state.global_step))
                last = whole_steps(self.checkpoints)[-CHECKPOINTS_KEPT:]
                keep_checkpoints(self.checkpoints, {*last, self.best_step})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.splade, Path(resume_from_checkpoint))

    def _stopped_at(self, checkpoint: Path) -> bool:
        log_history = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).log_history
        return self.stopping is not None and self.stopping.is_due(log_history)


class RunningMeans:
    """Means of named scalars; they stay on their device until they are taken."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Count one more value of each name."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def take(self) -> dict[str, float]:
        """Return the means of what was added, and forget it."""
        means = {name: (total / self._count).item() for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class Speedometer:
    """Optimiser steps per second, validation and checkpoints not counted."""

    def __init__(self, step: int):
        self._step, self._since = step, time.perf_counter()

    def take(self, step: int) -> float:
        """Return the speed since the last call, or since the beginning."""
        steps, seconds = step - self._step, time.perf_counter() - self._since
        self._step, self._since = step, self._since + seconds
        return steps / seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside the block."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


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
    arguments = training_arguments(run, folder / CHECKPOINTS_FOLDER, validation is not None)
    callbacks = [
        TrainingFile(folder),
        ValidationFile(folder),
        TensorBoard(folder / TENSORBOARD_FOLDER),
        Progress(),
        ValidateAtEnd(),
    ]
    if n_processes() > 1:
        freeze_unused_parameters(model)
    stopping = None
    if run.early_stopping:
        stopping = EarlyStopping(f"eval_{run.monitoring_ckpt}", bool(arguments.greater_is_better), run.patience)
        callbacks.append(stopping)
    trainer = SpladeTrainer(
        objective=objective,
        validation=validation,
        stopping=stopping,
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
        output_dir=str(folder),
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
        logging_steps=run.train_monitoring_freq,
        logging_nan_inf_filter=False,
        eval_strategy=schedule,
        eval_steps=run.record_frequency,
        save_strategy="steps",
        save_steps=run.record_frequency,
        metric_for_best_model=run.monitoring_ckpt if validates else None,
        greater_is_better=(run.monitoring_ckpt != "loss") if validates else None,
        dataloader_num_workers=2 if cuda else 0,
        remove_unused_columns=False,
        report_to="none",
        ddp_timeout=int(LONGEST_WAIT.total_seconds()),
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        log_level="error",
        accelerator_config={"even_batches": False},
    )


def batch_size_per_process(run: RunConfig) -> int:
    """Divide `train_batch_size` among the processes that `torchrun` started."""
    if run.train_batch_size % n_processes():
        raise ConfigError(
            f"config.train_batch_size={run.train_batch_size} cannot be divided among {n_processes()} processes"
        )
    return run.train_batch_size // n_processes()


def freeze_unused_parameters(model: Splade) -> None:
    """Freeze the parameters on which no vector depends, such as a pooler: the processes would wait for their gradient.

    Which they are shows when a few tokens are encoded: a used parameter has a gradient then, if only of zeros.
    """
    ids = torch.arange(8, device=next(model.parameters()).device).unsqueeze(0)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    training = model.training
    queries, documents = model.eval()(batch, batch)
    (queries.sum() + documents.sum()).backward()
    model.train(training)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            logger.info("%s has no influence and is not trained", name)
            parameter.requires_grad_(False)
        parameter.grad = None
