"""A page about a file of weights, and what is known about its training."""

from .card import model_card
from .facts import MEASURED, batch_size, results, training_data

__all__ = ['MEASURED', 'batch_size', 'model_card', 'results', 'training_data']
