"""Results of evaluations as a table and as a page."""

from .command import main

__all__ = ['main']
