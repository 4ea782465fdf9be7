"""Another library's checkpoint as one of ours."""

from .command import main

__all__ = ['main']
