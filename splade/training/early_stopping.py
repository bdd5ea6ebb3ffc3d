"""When to stop before the last step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


@dataclass(frozen=True)
class EarlyStopping(TrainerCallback):
    """Stops once `monitored` has not improved for `patience` validations.

    The decision depends on nothing but the log, which is part of every checkpoint, so a resumed run stops where an
    uninterrupted one does. The validation before the first step does not count.

    Example:
        >>> stopping = EarlyStopping("eval_loss", greater_is_better=False, patience=2)
        >>> stopping.is_due([{"step": step, "eval_loss": loss} for step, loss in ((2, 0.5), (4, 0.6), (6, 0.5))])
        True
    """

    monitored: str
    greater_is_better: bool
    patience: int

    def is_due(self, log_history: Sequence[Mapping[str, float]]) -> bool:
        """Return whether training has to stop after these log rows."""
        values = [row[self.monitored] for row in log_history if self.monitored in row and row["step"] > 0]
        if not values:
            return False
        best = max(values) if self.greater_is_better else min(values)
        return len(values) - 1 - values.index(best) >= self.patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask the trainer to stop when it is time."""
        if self.is_due(state.log_history):
            control.should_training_stop = True
