"""The augmentations of transforms/ for a whole batch at once, wherever it lies.

Images are uint8 RGB in [0, 255], (n, 3, S, S), before and after each operation, as they
are in the loader's workers: the same parameters give the same picture. Parameters are
on the host, where they were drawn, and only what a kernel reads is copied; nothing
here waits for the device.
"""

from .blur import gaussian_blur
from .color import color_jitter, grayscale, luma
from .crop import resized_crops
from .geometric import cutout, gaussian_noise, rotate, sobel
from .steps import STEP_WIDTH, augment, decode_step, encode_batch, encode_step
from .views_to_make import ViewsToMake

__all__ = [
    'STEP_WIDTH',
    'ViewsToMake',
    'augment',
    'color_jitter',
    'cutout',
    'decode_step',
    'encode_batch',
    'encode_step',
    'gaussian_blur',
    'gaussian_noise',
    'grayscale',
    'luma',
    'resized_crops',
    'rotate',
    'sobel',
]
