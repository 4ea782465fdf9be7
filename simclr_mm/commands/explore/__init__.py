"""One HTML page on which an embedded folder is looked at."""

from .command import main

__all__ = ['main']
