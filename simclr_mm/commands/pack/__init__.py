"""A folder of images in a few large files."""

from .command import main

__all__ = ['main']
