"""A checkpoint to publish, its model card and its entry in a model index."""

from .command import main

__all__ = ['main']
