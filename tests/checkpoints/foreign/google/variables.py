"""Values of variables from their names: the same here and in TensorFlow."""

import zlib

import numpy as np

RANGES = dict(
    gamma=(0.5, 1.5), beta=(-0.5, 0.5), moving_mean=(-0.5, 0.5), moving_variance=(0.5, 2.0)
)


def value(name: str, shape: tuple) -> np.ndarray:
    """Weights of a variance that keeps features finite; random BN statistics.

    Multiples of 1/64, which compress well.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.split('/')[-1]
    if kind in RANGES:
        values = random.uniform(*RANGES[kind], shape)
    else:
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 1
        values = random.randn(*shape) * np.sqrt(2 / fan_in)
    return (np.round(values * 64) / 64).astype(np.float32)


def images(height: int, width: int) -> np.ndarray:
    """Two images in [0, 1], channels last."""
    random = np.random.RandomState(height)
    return random.uniform(0, 1, (2, height, width, 3)).astype(np.float32)
