"""Training: gradient descent on any sequences and any loss. Nothing here knows what they mean."""

from manual_bptt.training.batches import ArraySequences, Sequences, shuffled_batches
from manual_bptt.training.checkpoints import load_training, save_training
from manual_bptt.training.objectives import mean_last_step_squared_error, mean_squared_error
from manual_bptt.training.optimizers import (
    SGD,
    Adam,
    Constant,
    Optimizer,
    Schedule,
    WarmupCosine,
    clip_by_global_norm,
)
from manual_bptt.training.scaling import moments
from manual_bptt.training.trainer import DivergenceError, Settings, Step, Training, begin, train

__all__ = [
    "SGD",
    "Adam",
    "ArraySequences",
    "Constant",
    "DivergenceError",
    "Optimizer",
    "Schedule",
    "Sequences",
    "Settings",
    "Step",
    "Training",
    "WarmupCosine",
    "begin",
    "clip_by_global_norm",
    "load_training",
    "mean_last_step_squared_error",
    "mean_squared_error",
    "moments",
    "save_training",
    "shuffled_batches",
    "train",
]
