"""A pretrained encoder beside an untrained one and raw pixels."""

from .command import main

__all__ = ['main']
