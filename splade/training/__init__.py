"""Training: the order of examples, the objective, validation, checkpoints and the trainer."""
