"""A model card for a file of weights, with the facts of its training."""

from .card import model_card
from .facts import MEASURED, batch_size, results, training_data

__all__ = ['MEASURED', 'batch_size', 'model_card', 'results', 'training_data']
