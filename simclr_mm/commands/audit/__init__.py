"""Find duplicates, leaks and useless images before training."""

from .command import main

__all__ = ['main']
