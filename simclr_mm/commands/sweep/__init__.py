"""The paper's studies: their cells, runs and processes."""

from .command import main

__all__ = ['main']
