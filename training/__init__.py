"""Training: optimizers, schedules, data loaders, datasets, the training loop, its checkpoints and its history."""
