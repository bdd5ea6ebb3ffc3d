"""One run of middle-training: a collection, a language model, and the trainer of both."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import set_seed

from splade.config.jobs import Figures
from splade.config.record import save_config, save_record
from splade.config.schema import Experiment, RegularizerConfig
from splade.datasets.collections import open_collection
from splade.distributed import first_process_first, n_processes, on_first_process, process_rank
from splade.encoding.lengths import settle_max_length
from splade.errors import ConfigError, ModelError
from splade.losses import needs_idf, parse_regularizers
from splade.models.from_scratch import write_random_model
from splade.models.load import build_splade
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.save import DONE_FILE, MODEL_FOLDER, save_splade
from splade.models.splade import Splade
from splade.models.token_idf import token_weights
from splade.storage.atomic import write_json
from splade.storage.paths import is_replaceable
from splade.training.masked_texts import MaskingCollator, PlainTexts
from splade.training.mlm_training import MaskedLanguageModel, MiddleTrainingObjective
from splade.training.run_folder import RunFolder
from splade.training.sampler import HeldOut, TrainingSampler, split_rows
from splade.training.schedule import Schedule, schedule_of, with_global_batch
from splade.training.trainer import SpladeTrainer
from splade.training.unused import freeze_unused
from splade.training.validation import Validation

logger = logging.getLogger(__name__)

COPY_MARK = "middle_trained.json"  # in a copy, which may be replaced
START_FOLDER = "start"  # the random model of a run from scratch, with its tokenizer


@dataclass(frozen=True)
class MiddleTrainResult:
    """A finished run of middle-training.

    Attributes:
        middle_trained_steps: optimiser steps done.
        n_texts: texts that were learned from.
        before: what was measured on held-out texts before the first step; empty without any.
        after: the same of the model that was kept.
    """

    folder: Path
    middle_trained_steps: int
    n_texts: int
    before: Mapping[str, float]
    after: Mapping[str, float]

    def summary(self) -> str:
        """Return what was trained, what it changed, and where the model is."""
        lines = [f"middle-trained {self.middle_trained_steps} steps on {self.n_texts} texts"]
        shown = [name for name in ("mlm", "spans", "flops", "L0") if name in self.after]
        lines += [f"{name}: {self.before[name]:.4g} before, {self.after[name]:.4g} after" for name in shown]
        return "\n  ".join([*lines, f"model in {self.folder / MODEL_FOLDER}"])

    def figures(self) -> list[Figures]:
        """Return what was measured on held-out texts."""
        return [Figures(metrics=dict(self.after))] if self.after else []


def middle_train(experiment: Experiment) -> MiddleTrainResult:
    """Train a language model on a collection and save it; a run that is complete is left as it is.

    An interrupted run resumes from its last complete checkpoint and ends with the weights of an uninterrupted one.

    Raises:
        ConfigError: settings that contradict each other, or are for other kinds of training.
        DataError: a collection that cannot be read, or has too few texts.
        ModelError: a model that cannot be trained so.
    """
    experiment = with_global_batch(experiment)
    check_middle_training(experiment)
    folder = RunFolder(experiment)
    on_first_process(lambda: _check_copy(experiment))
    finished = on_first_process(folder.outcome)
    if finished is not None:
        logger.info("%s is already trained with these settings: nothing to do", folder.path)
        try:
            result = MiddleTrainResult(folder.path, **finished)
            result.summary()
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(f"{folder.path / DONE_FILE}: not what middle-training writes ({error})") from error
        on_first_process(lambda: _copy_model(experiment))
        return result
    texts = first_process_first(lambda: open_texts(experiment))
    step = on_first_process(folder.start)
    if experiment.pretrain.vocab_size is not None:
        on_first_process(lambda: _write_start(experiment, texts, fresh=step is None))
    trainer, model = prepare_middle_training(experiment, texts)
    if process_rank() == 0:
        save_config(experiment, folder.path)
        save_record(experiment, folder.path, "pretrain")
    if step is not None:
        logger.info("resuming from step %d", step)
    trainer.train_from(step)
    measured = [row for row in trainer.state.log_history if "eval_mlm" in row]
    kept = [row for row in measured if row["step"] == trainer.kept_step]
    result = MiddleTrainResult(
        folder.path, trainer.state.global_step, len(trainer.sampler.rows), *map(_figures, (measured[:1], kept[-1:]))
    )

    def save() -> None:
        save_splade(model, folder.path, trainer.collator.max_length)
        folder.finish({name: value for name, value in asdict(result).items() if name != "folder"})
        _copy_model(experiment)

    on_first_process(save)
    return result


def check_middle_training(experiment: Experiment) -> None:
    """Raise a ConfigError for settings that have no meaning here."""
    run, init = experiment.config, experiment.init_dict
    for name, given, right in (
        ("config.matching_type", run.matching_type, "splade"),
        ("init_dict.model_type_or_dir_q", init.model_type_or_dir_q, None),
        ("init_dict.lora.rank", init.lora.rank, None),
        ("config.encode_at_a_time", run.encode_at_a_time, None),
    ):
        if given != right:
            raise ConfigError(f"{name}={given}: one language model is middle-trained as a whole; leave it out")
    entries = run.regularizer if isinstance(run.regularizer, Mapping) else {}
    for name, entry in entries.items():
        if isinstance(entry, RegularizerConfig) and entry.lambda_q is not None:
            raise ConfigError(
                f"config.regularizer.{name}.lambda_q={entry.lambda_q:g}: middle-training has no queries; its vectors "
                "are those of documents, with lambda_d"
            )


def open_texts(experiment: Experiment) -> PlainTexts:
    """Open the collection.

    Raises:
        ConfigError: no text would be left to learn from.
    """
    texts = PlainTexts(open_collection(str(experiment.pretrain.collection)))
    held_out = experiment.data.VALIDATION_SIZE_FOR_LOSS or 0
    if held_out >= len(texts):
        raise ConfigError(f"data.VALIDATION_SIZE_FOR_LOSS={held_out}, but there are only {len(texts)} texts")
    return texts


def prepare_middle_training(
    experiment: Experiment, texts: PlainTexts
) -> tuple[SpladeTrainer[MaskedLanguageModel], Splade]:
    """Build the model and its trainer, nothing of it trained yet."""
    run = experiment.config
    set_seed(run.seed)
    init = experiment.init_dict
    if experiment.pretrain.vocab_size is not None:
        init = replace(init, model_type_or_dir=str(_start_folder(experiment)))
    splade = build_splade(init, run, to_train=True)
    encoder = splade.document_encoder
    if not isinstance(encoder, MaskedLMEncoder):
        raise ModelError(f"'{splade.name}' is no language model")
    if run.gradient_checkpointing:
        splade.checkpoint_activations()
    max_length = settle_max_length(run.max_length, splade)
    asked = experiment.pretrain
    collator = MaskingCollator(splade.tokenizer, max_length, asked.masked_share, run.seed, asked.span_weight > 0)
    rows, held_out_rows = split_rows(len(texts), experiment.data.VALIDATION_SIZE_FOR_LOSS or 0, run.seed)
    schedule: Schedule = schedule_of(run, len(rows))
    length = schedule.steps * run.gradient_accumulation_steps * schedule.batch_size
    validation = None
    if len(held_out_rows):
        precision = torch.float16 if run.fp16 and torch.cuda.is_available() else torch.bfloat16 if run.bf16 else None
        held_out = HeldOut(texts, held_out_rows)
        validation = Validation(held_out, collator, None, max_length, run.eval_batch_size, precision)
    sampler = TrainingSampler(texts, rows, run.seed, length)
    model = MaskedLanguageModel(encoder)
    idf = token_weights(init, splade.tokenizer, splade.vocab_size) if needs_idf(run.regularizer) else None
    objective = MiddleTrainingObjective(parse_regularizers(run.regularizer, idf), asked.span_weight)
    if n_processes() > 1:
        freeze_unused(model, collator([texts.example(0)]))
    return SpladeTrainer(run, schedule, model, sampler, collator, objective, validation), splade


def _start_folder(experiment: Experiment) -> Path:
    return Path(str(experiment.config.checkpoint_dir)) / START_FOLDER


def _write_start(experiment: Experiment, texts: PlainTexts, fresh: bool) -> None:
    """Write the random model that a run starts from, once: a run that resumes needs the same tokenizer."""
    folder, settings, run = _start_folder(experiment), experiment.pretrain, experiment.config
    if not fresh and folder.is_dir():
        return
    length = run.max_length or 512
    words = (text for _, text in texts.collection)
    write_random_model(
        folder, words, settings.vocab_size or 0, settings.n_layers, settings.hidden_size, length, run.seed
    )


def _copy_model(experiment: Experiment) -> None:
    """Copy the model to where `pretrain.model_dir` wants it; what is there is replaced once the copy is complete."""
    if experiment.pretrain.model_dir is None:
        return
    target = Path(experiment.pretrain.model_dir).absolute()
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(Path(str(experiment.config.checkpoint_dir)) / MODEL_FOLDER, beside)
    write_json(beside / COPY_MARK, {"copied_from": str(Path(str(experiment.config.checkpoint_dir)).absolute())})
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)


def _check_copy(experiment: Experiment) -> None:
    """Refuse to replace what is no copy of a model, before anything is trained."""
    target = experiment.pretrain.model_dir
    if target is not None and Path(target).exists() and not is_replaceable(Path(target), COPY_MARK):
        raise ConfigError(
            f"pretrain.model_dir={target} is there, and is no copy that splade.pretrain made; give another folder"
        )


def _figures(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return what a row of the log has of held-out texts."""
    return {
        name.removeprefix("eval_"): value for row in rows for name, value in row.items() if name.startswith("eval_")
    }
