"""Checkpoints of other libraries: recognise them, and rename their keys."""
