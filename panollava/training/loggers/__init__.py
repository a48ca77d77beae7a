"""Where metrics and example answers go besides events.jsonl: Weights & Biases, TensorBoard, a CSV file.

What is wanted and cannot be had, and what fails on the way, is said once; the training goes on without it.
"""

from panollava.training.loggers.base import Logger, Place, Unavailable
from panollava.training.loggers.every import Loggers, opened

__all__ = ["Logger", "Loggers", "Place", "Unavailable", "opened"]
