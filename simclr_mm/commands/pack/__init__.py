"""Pack a folder of images into a few large files."""

from .command import main

__all__ = ['main']
