"""Batched versions of the augmentations in transforms/, for every device.

Images are uint8 RGB in [0, 255], (n, 3, S, S), before and after each operation. The same
parameters give the same image as in the loader's workers. Parameters stay on the host, and
only the numbers that a kernel needs are copied. Nothing waits for the device.
"""

from .blur import gaussian_blur
from .color import color_jitter, grayscale, luma
from .crop import INTERPOLATIONS, crop_and_flip, resized_crops
from .geometric import cutout, gaussian_noise, rotate, sobel
from .pixels import on_rows
from .views_to_make import CROP_WIDTH, STEP_WIDTH, TWINS, ViewsToMake, augment

__all__ = [
    'CROP_WIDTH',
    'INTERPOLATIONS',
    'STEP_WIDTH',
    'TWINS',
    'ViewsToMake',
    'augment',
    'color_jitter',
    'crop_and_flip',
    'cutout',
    'gaussian_blur',
    'gaussian_noise',
    'grayscale',
    'luma',
    'on_rows',
    'resized_crops',
    'rotate',
    'sobel',
]
