"""Features of every image in a folder, and the index made of them."""

from .command import main

__all__ = ['main']
