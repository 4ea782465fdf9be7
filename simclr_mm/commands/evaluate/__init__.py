"""Compare a pretrained encoder with an untrained one and with raw pixels."""

from .command import main

__all__ = ['main']
