"""Task: a model with its card, as a folder and, when asked, on the Hugging Face hub."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import CONFIG_FILE, read_config, save_config
from splade.encoding.lengths import settle_max_length
from splade.errors import ConfigError
from splade.interop.hub_upload import upload_folder
from splade.models.load import load_for_inference
from splade.models.save import DONE_FILE, MODEL_FOLDER, read_done, save_splade
from splade.models.splade import Splade
from splade.reports.model_card import CardFacts, EvaluatedOn, render_model_card
from splade.reports.summaries import TaskResult
from splade.retrieval.evaluate_retriever import PERF_FILE, stored_costs
from splade.storage.atomic import read_json_object, read_numbers, write_json, write_text
from splade.storage.locks import FolderLock
from splade.storage.paths import is_replaceable, resolve_path

logger = logging.getLogger(__name__)

_MADE_FROM = "pushed_model.json"
_CARD = "README.md"


def push(experiment: Experiment) -> TaskResult:
    """Make a folder that transformers, sentence-transformers and splade load, with a model card.

    It holds the model, the configuration and the card, with all that config.out_dir has of results of this model. Edit
    the card; with push.repo_id the folder is uploaded as it is then.
    """
    run, push_keys = experiment.config, experiment.push
    if not run.pretrained_no_yamlconfig:
        require(experiment, "config.checkpoint_dir")
        folder = Path(push_keys.folder or Path(str(run.checkpoint_dir)) / "hub")
    else:
        require(experiment, "push.folder", "init_dict.model_type_or_dir")
        folder = Path(str(push_keys.folder))
    if push_keys.repo_id is not None and push_keys.license is None and not (folder / _CARD).is_file():
        raise ConfigError("push.repo_id needs push.license: without one nobody may use the model")
    model = load_for_inference(experiment)
    with FolderLock(folder.parent):
        made = _make_folder(experiment, model, folder)
    lines = [f"{model.name}: model and card in {folder}" if made else f"{folder}: already made; uploaded as it is"]
    if push_keys.repo_id is None:
        lines.append("  look at README.md there, then upload it with push.repo_id=OWNER/NAME")
    else:
        address = upload_folder(folder, push_keys.repo_id, push_keys.private, left_out=(_MADE_FROM,))
        lines.append(f"  uploaded to {address}")
    return TaskResult(text="\n".join(lines))


def _make_folder(experiment: Experiment, model: Splade, folder: Path) -> bool:
    """Make the folder, or return False where it was made from this model before: its card may have been edited."""
    made_from = {"fingerprint": model.fingerprint().as_dict(), "queries": model.query_digest()}
    if folder.exists() and not is_replaceable(folder, _MADE_FROM):
        raise ConfigError(
            f"push.folder={folder} is there, and is no folder that splade.push made; give one that is not there"
        )
    if folder.exists() and not experiment.config.overwrite:
        known = read_json_object(folder / _MADE_FROM) if (folder / _MADE_FROM).is_file() else None
        if known == made_from and experiment.push.repo_id is not None:
            return False
        what = "was not made from this model"
        if known == made_from:
            what = "is there already, with a card that may be edited"
        raise ConfigError(f"{folder} {what}; give another push.folder, or replace it with config.overwrite=true")
    folder = folder.absolute()  # `.` has no name
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save_splade(model, part, settle_max_length(experiment.config.max_length, model))
    ready = part / MODEL_FOLDER
    trained = _trained_with(experiment)
    if trained is not None:
        save_config(trained, ready)
    facts = _facts(experiment, trained, model, (ready / "modules.json").is_file())
    write_text(ready / _CARD, render_model_card(facts))
    write_json(ready / _MADE_FROM, made_from)
    shutil.rmtree(folder, ignore_errors=True)
    ready.rename(folder)
    shutil.rmtree(part)
    return True


def _trained_with(experiment: Experiment) -> Experiment | None:
    """Return the configuration that a checkpoint was trained with."""
    if experiment.config.pretrained_no_yamlconfig:
        return None
    folder = Path(str(experiment.config.checkpoint_dir))
    return read_config(folder) if (folder / CONFIG_FILE).is_file() else None


def _facts(experiment: Experiment, trained: Experiment | None, model: Splade, is_sparse_encoder: bool) -> CardFacts:
    config, best = trained or experiment, None
    if trained is not None:
        config = replace(trained, push=experiment.push)
        folder = Path(str(experiment.config.checkpoint_dir))
        result = read_done(folder)["result"] if (folder / DONE_FILE).is_file() else {}
        if result.get("best") is not None and result.get("best_step") is not None:
            best = (str(result["monitored"]), float(result["best"]), int(result["best_step"]))
    return CardFacts(
        name=experiment.push.repo_id or Path(experiment.push.folder or model.name).name,
        experiment=config,
        trained=trained is not None,
        vocab_size=model.vocab_size,
        activation=getattr(model.document_encoder, "activation", "relu"),
        one_encoder=model.shared,
        is_sparse_encoder=is_sparse_encoder,
        results=tuple(_results(experiment, model)),
        best=best,
    )


def _results(experiment: Experiment, model: Splade) -> Iterator[EvaluatedOn]:
    """Yield the results below config.out_dir that are of this model."""
    if experiment.config.out_dir is None or not Path(experiment.config.out_dir).is_dir():
        return
    out_dir = Path(experiment.config.out_dir)
    for path in sorted(out_dir.rglob(PERF_FILE)):
        costs, name = stored_costs(path.parent), str(path.parent.relative_to(out_dir))
        if costs.model is not None and _same_model(costs.model, model.name):
            yield EvaluatedOn(name.removeprefix("beir/"), read_numbers(path), costs)
        else:
            logger.info("%s: of the model '%s', left out of the card", path, costs.model or "unknown")


def _same_model(one: str, other: str) -> bool:
    return one == other or (Path(one).is_dir() and Path(other).is_dir() and resolve_path(one) == resolve_path(other))
