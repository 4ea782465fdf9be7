"""An encoder for other libraries, verified there."""

from .command import main

__all__ = ['main']
