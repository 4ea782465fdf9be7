"""Convert another library's checkpoint."""

from .command import main

__all__ = ['main']
