"""Batched versions of the augmentations in transforms/, for every device.

Images are uint8 RGB in [0, 255], (n, 3, S, S), before and after each operation; or (n, C, S, S)
uint8 or float32, for operations that work on any bands. uint8 is rounded and clipped by each
operation, float32 never. The same parameters give the same image as in the loader's workers.
Parameters stay on the host, and only the numbers that a kernel needs are copied. Nothing waits
for the device.
"""

from .views_to_make import ViewsToMake

__all__ = ['ViewsToMake']
