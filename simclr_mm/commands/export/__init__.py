"""Export an encoder to other libraries, with a verification there."""

from .command import main

__all__ = ['main']
