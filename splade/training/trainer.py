"""Training on top of `transformers.Trainer`: our objective, our validation, and checkpoints that are complete."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from splade.config.schema import RunConfig
from splade.distributed import LONGEST_WAIT, gather, n_processes, process_rank, wait_for_all
from splade.errors import SpladeError
from splade.models.save import saving
from splade.models.token_lookup import TokenLookupEncoder
from splade.training.callbacks import (
    TENSORBOARD_FOLDER,
    PerformanceFiles,
    Progress,
    TensorBoard,
    ValidateAtEnd,
    is_training,
)
from splade.training.checkpoints import STATE_FILE, checkpoint_path, complete_steps, keep_checkpoints, mark_complete
from splade.training.collator import BatchMaker
from splade.training.early_stopping import EarlyStopping
from splade.training.meters import LossWatch, RunningMeans, Speedometer
from splade.training.objective import RegularizedObjective
from splade.training.run_folder import CHECKPOINTS_FOLDER
from splade.training.sampler import TrainingSampler
from splade.training.schedule import Schedule
from splade.training.validation import Validation
from splade.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    import optuna

Model = TypeVar("Model", bound=nn.Module)
OBJECTIVE_FILE = "objective.safetensors"
CHECKPOINTS_KEPT = 3  # the last ones; the best one is kept besides
LOSSES_AT_ONCE = 100  # that are looked at together on a GPU

logger = logging.getLogger(__name__)


class SpladeTrainer(Trainer, Generic[Model]):
    """Trains a model, a `Splade` or one of its parts, as `config` says.

    The sampler has the examples in the order of training; `validation`, if any, is made every `record_frequency` steps.
    """

    def __init__(
        self,
        run: RunConfig,
        schedule: Schedule,
        model: Model,
        sampler: TrainingSampler,
        collator: BatchMaker,
        objective: RegularizedObjective,
        validation: Validation | None,
    ):
        folder = Path(str(run.checkpoint_dir))
        arguments = training_arguments(run, schedule, folder / CHECKPOINTS_FOLDER, validation is not None)
        self.stopping = None
        self.keeps_last, self.monitored = run.overwrite_final, run.monitoring_ckpt
        if run.early_stopping:
            watched = run.early_stopping if isinstance(run.early_stopping, str) else run.monitoring_ckpt
            self.stopping = EarlyStopping(f"eval_{watched}", watched != "loss", run.patience)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collator,
            train_dataset=sampler,
            eval_dataset=[] if validation is not None else None,
            callbacks=[
                PerformanceFiles(folder),
                TensorBoard(folder / TENSORBOARD_FOLDER),
                Progress(),
                ValidateAtEnd(),
                *([self.stopping] if self.stopping is not None else []),
            ],
        )
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.splade: Model = model
        self.token_weights_lr = run.token_weights_lr
        self.collator = collator
        self.sampler = sampler
        self.objective: RegularizedObjective = objective
        self.validation = validation
        self.checkpoints = folder / CHECKPOINTS_FOLDER
        self.model_accepts_loss_kwargs = False
        self.losses = LossWatch(look_every=1 if self.args.device.type == "cpu" else LOSSES_AT_ONCE)
        self._terms = RunningMeans()
        self._speed = Speedometer(0)

    def train_from(self, step: int | None) -> None:
        """Train from the start, or resume from the checkpoint of a step; the model ends with the weights to keep."""
        checkpoint = None if step is None else checkpoint_path(self.checkpoints, step)
        if checkpoint is not None and self._stopped_at(checkpoint):
            self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        else:
            self.args.eval_on_start = self.validation is not None and checkpoint is None
            self._speed = Speedometer(step or 0)
            self._load_rng_state(None if checkpoint is None else str(checkpoint))
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        load_weights(self.splade, checkpoint_path(self.checkpoints, self.kept_step))

    @property
    def best_step(self) -> int:
        """The step with the best validation; the last one without validation."""
        best = self.state.best_global_step
        return self.state.global_step if best is None else best

    @property
    def kept_step(self) -> int:
        """The step whose weights become the model."""
        return self.state.global_step if self.keeps_last else self.best_step

    @property
    def kept_value(self) -> float | None:
        """What `monitoring_ckpt` was at that step; None without validation."""
        measured = [row for row in self.state.log_history if f"eval_{self.monitored}" in row]
        return measured[-1][f"eval_{self.monitored}"] if self.keeps_last and measured else self.state.best_metric

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser; weights of query tokens have a learning rate of their own and do not decay.

        They are looked up, so each has a gradient in few batches only, and it would take the encoder's learning rate
        hundreds of thousands of steps to move a weight of 1 to what it should be.
        """
        made_before = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        lookups = [module for module in self.splade.modules() if isinstance(module, TokenLookupEncoder)]
        weights = {id(weight): weight for lookup in lookups for weight in lookup.parameters() if weight.requires_grad}
        if weights and not made_before:
            for group in optimizer.param_groups:
                group["params"] = [weight for weight in group["params"] if id(weight) not in weights]
            group = {"params": list(weights.values()), "lr": self.token_weights_lr, "weight_decay": 0.0}
            optimizer.add_param_group(group)
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the objective of one batch and remember its terms for the next log line."""
        loss, terms = self.objective(model, inputs, self.state.global_step)
        self.losses.add(self.state.global_step, loss, terms)
        self._terms.add(terms)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to a training log line the mean loss terms of all processes since the last one, and the speed."""
        if is_training(logs):
            self.losses.check()
            self.objective.check()
            shares = gather(self._terms.take())
            logs |= {name: sum(share[name] for share in shares) / len(shares) for name in shares[0]}
            logs |= {"steps_per_second": self._speed.take(self.state.global_step)}
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure validation loss and full-ranking metrics; the processes share the work, all get the numbers."""
        self.losses.check()
        with self._speed.paused():
            result = self._validate()
        self.log({f"{metric_key_prefix}_{name}": value for name, value in result.items()})
        row = self.state.log_history[-1]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, row)
        return row

    def _validate(self) -> dict[str, float]:
        assert self.validation is not None, "the trainer asks for validation only where there is some"
        self.splade.eval()
        values = self.validation(self.splade, self.objective)
        self.splade.train()
        wrong = ", ".join(f"{name}={value}" for name, value in values.items() if not math.isfinite(value))
        if wrong:
            raise SpladeError(
                f"validation at step {self.state.global_step} gave {wrong}. Lower config.lr, use bf16 instead of fp16, "
                "and check the scores of the held-out examples."
            )
        return values

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(self.sampler)  # its order is that of training already

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(str(output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.splade, folder)
        state = {name: value.contiguous() for name, value in self.objective.state().items()}
        if state:
            safetensors.torch.save_file(state, str(folder / OBJECTIVE_FILE))

    def _save_checkpoint(self, model: nn.Module, trial: "optuna.Trial | dict[str, object] | None") -> None:
        self.losses.check()
        with self._speed.paused():
            checkpoint = checkpoint_path(self.checkpoints, self.state.global_step)
            with saving(checkpoint):
                super()._save_checkpoint(model, trial)
            wait_for_all()  # every process has written its random state
            if self.args.should_save:
                mark_complete(checkpoint)
                last = complete_steps(self.checkpoints)[-CHECKPOINTS_KEPT:]
                keep_checkpoints(self.checkpoints, {*last, self.best_step})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on drawing where a run with as many processes was; each process draws dropout of its own."""
        several = n_processes() > 1
        name = f"rng_state_{process_rank()}.pth" if several else "rng_state.pth"
        if checkpoint is not None and (Path(checkpoint) / name).is_file():
            super()._load_rng_state(checkpoint)
        elif several or checkpoint is not None:  # a run of one process has its seed already
            place = [self.args.seed, process_rank(), n_processes(), self.state.global_step]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.splade, Path(resume_from_checkpoint))
        state = Path(resume_from_checkpoint) / OBJECTIVE_FILE
        if state.is_file():
            self.objective.load(safetensors.torch.load_file(state))

    def _stopped_at(self, checkpoint: Path) -> bool:
        log_history = TrainerState.load_from_json(str(checkpoint / STATE_FILE)).log_history
        return self.stopping is not None and self.stopping.is_due(log_history)


def training_arguments(run: RunConfig, schedule: Schedule, folder: Path, validates: bool) -> TrainingArguments:
    """Translate `config` into the arguments of `transformers.Trainer`."""
    cuda = torch.cuda.is_available()
    if run.fp16 and not cuda:
        logger.info("config.fp16=true is for CUDA devices; on this machine training is in float32")
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=schedule.batch_size // n_processes(),
        max_steps=schedule.steps,
        learning_rate=run.lr,
        weight_decay=run.weight_decay,
        warmup_steps=schedule.warmup_steps,
        lr_scheduler_type="linear",
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        max_grad_norm=run.max_grad_norm,
        fp16=run.fp16 and cuda,
        bf16=run.bf16,
        use_cpu=not cuda,
        seed=run.seed,
        logging_steps=run.train_monitoring_freq,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
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
    # One process trains on one GPU. For several that it sees, transformers would take torch.nn.DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
