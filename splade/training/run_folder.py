"""What a checkpoint folder holds of a training run, and which settings it belongs to."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from splade.config.identity import recorded_settings, settings_affecting
from splade.config.schema import Affects, Experiment
from splade.errors import ConfigError
from splade.models.original_checkpoint import is_original_checkpoint
from splade.models.save import DONE_FILE, MODEL_FOLDER, QUERY_MODEL_FOLDER, model_damage, read_done
from splade.storage.atomic import JsonObject, read_json_object, write_json
from splade.storage.checksums import checksums
from splade.storage.locks import FolderLock
from splade.training.checkpoints import complete_steps, keep_checkpoints, last_whole_step

logger = logging.getLogger(__name__)

CHECKPOINTS_FOLDER, SETTINGS_FILE = "model_ckpt", "settings.json"


class RunFolder:
    """The checkpoint folder of a training run.

    The run may be killed at any moment: its settings are written before its first checkpoint, every checkpoint ends
    with a mark (`splade.training.checkpoints`), and the outcome, without which `model/` does not count, is written last
    of all. Whatever is removed loses its mark first.
    """

    def __init__(self, experiment: Experiment):
        self.path = Path(str(experiment.config.checkpoint_dir))
        self.checkpoints = self.path / CHECKPOINTS_FOLDER
        self._record, self._schema = asdict(experiment), type(experiment)
        self.settings = settings_affecting(experiment, Affects.TRAIN)
        self._overwrite = experiment.config.overwrite

    def outcome(self) -> JsonObject | None:
        """Return what `finish` wrote when these settings were trained to the end, else take the folder's lock.

        Raises:
            BusyError: another process is training in the folder.
            ConfigError: the folder holds a run of other settings, and may not be overwritten.
        """
        finished = self._finished()
        if finished is None:
            self._lock = FolderLock(self.path)  # until the end of the process, or of this object
            finished = self._finished()  # by who has just released the lock
        return finished

    def _finished(self) -> JsonObject | None:
        if is_original_checkpoint(self.path):
            raise ConfigError(
                f"config.checkpoint_dir={self.path} holds a checkpoint of the original toolkit, which is never "
                "replaced; give another config.checkpoint_dir. Indexing and retrieval can use it as it is"
            )
        before = self._settings_before()
        if before is not None and before != self.settings and not self._overwrite:
            raise ConfigError(
                f"config.checkpoint_dir={self.path} belongs to a run with other settings "
                f"({_first_difference(before, self.settings)}). Give another config.checkpoint_dir, or replace that "
                "run with config.overwrite=true"
            )
        if before != self.settings or not (self.path / DONE_FILE).is_file():
            return None
        record = read_done(self.path)
        if fault := model_damage(self.path, record):
            logger.warning("%s: %s; it is made anew from the checkpoints", self.path, fault)
            return None
        outcome: JsonObject = record["result"]
        return outcome

    def start(self) -> int | None:
        """Clear away what is of no use, and return the step of the checkpoint to go on from, if there is one.

        Damaged checkpoints are of no use, nor are those after the one to go on from: their steps are done again.
        """
        (self.path / DONE_FILE).unlink(missing_ok=True)
        if self._settings_before() != self.settings:
            keep_checkpoints(self.checkpoints, ())
            write_json(self.checkpoints / SETTINGS_FILE, self._record)
        last = last_whole_step(self.checkpoints)
        kept = [step for step in complete_steps(self.checkpoints) if last is not None and step <= last]
        keep_checkpoints(self.checkpoints, kept)
        return last

    def finish(self, outcome: Mapping[str, object]) -> None:
        """Write down that training has ended."""
        files = checksums(self.path, MODEL_FOLDER, QUERY_MODEL_FOLDER)
        write_json(self.path / DONE_FILE, {"settings": self._record, "result": outcome, "files": files})

    def _settings_before(self) -> dict[str, object] | None:
        """Return the settings of the run whose model or checkpoints are here, if there is one."""
        done, started = self.path / DONE_FILE, self.checkpoints / SETTINGS_FILE
        if done.is_file():
            record = read_done(self.path)["settings"]
        elif started.is_file() and complete_steps(self.checkpoints):
            record = read_json_object(started)
        else:
            return None
        return recorded_settings(record, Affects.TRAIN, schema=self._schema)


def _first_difference(before: dict[str, object], now: dict[str, object]) -> str:
    name = next(
        name for name in [*now, *before] if before.get(name) != now.get(name) or (name in before) != (name in now)
    )
    return f"{name} was {before.get(name)}, is {now.get(name)}"
