"""Measure the bands of images."""
