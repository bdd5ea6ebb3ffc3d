"""Configuration: the schema, the choice of a config file, and the way from a command line to a task."""

from splade.config.command import compose_experiment, run_task
from splade.config.schema import Experiment
from splade.config.validate import check_monitored, require, to_experiment

__all__ = ["Experiment", "check_monitored", "compose_experiment", "require", "run_task", "to_experiment"]
