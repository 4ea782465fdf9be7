"""Transfer to other datasets by a linear classifier or by fine-tuning."""

from .command import main

__all__ = ['main']
