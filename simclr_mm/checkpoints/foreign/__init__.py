"""Checkpoints of other libraries: whose they are, and their keys as ours."""
