"""The augmentations of transforms/ for a whole batch at once, wherever it lies.

Images are uint8 RGB in [0, 255], (n, 3, S, S), before and after each operation. The same
parameters give the same picture as in the loader's workers. Parameters are on the host,
where they were drawn, and only what a kernel reads is copied. Nothing here waits for the
device.
"""

from .views_to_make import ViewsToMake

__all__ = ['ViewsToMake']
