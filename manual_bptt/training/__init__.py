"""Training: gradient descent on any sequences and any loss. Nothing here knows what they mean."""

from manual_bptt.training.batches import shuffled_batches
from manual_bptt.training.sgd import DivergenceError, Trained, sgd

__all__ = ["DivergenceError", "Trained", "sgd", "shuffled_batches"]
