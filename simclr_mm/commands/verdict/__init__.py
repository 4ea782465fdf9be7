"""Say whether pretraining helped, with intervals."""

from .command import main

__all__ = ['main']
