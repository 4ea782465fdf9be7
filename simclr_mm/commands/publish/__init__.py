"""Publish a checkpoint, with its model card and its entry in a model index."""
