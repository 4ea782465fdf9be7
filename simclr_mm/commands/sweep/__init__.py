"""The paper's studies: their cells, the runs, the processes that train them."""

from .command import main

__all__ = ['main']
