"""Transfer to other datasets: a linear classifier, or fine-tuning."""

from .command import main

__all__ = ['main']
