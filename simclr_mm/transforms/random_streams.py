"""Random numbers for all images of a batch at once, each a function of its address.

n images of a batch.
"""
from typing import Sequence, Union

import numpy as np

Drawn = Union[float, np.ndarray]
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)[:, None]
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)[:, None]
_LOW = np.uint64(2**32 - 1)
_HALF = np.uint64(32)
_BLOCKS = 3


def philox4x32(counters: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Philox4x32-10: a bijection that makes random words of counters.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
        Sec. 3.3, with its constants. JAX and cuRAND have generators of this kind too.

    Args:
        counters: (4, n) words, uint64 below 2^32.
        keys: (2, n) words, likewise.

    Returns:
        (4, n) words, likewise.
    """
    even, odd = counters[0::2], counters[1::2]  # (2, n) each
    for _ in range(10):
        products = even * _MULTIPLIERS
        even, odd = (products[::-1] >> _HALF) ^ odd ^ keys, products[::-1] & _LOW
        keys = (keys + _KEY_STEPS) & _LOW
    return np.stack((even, odd), axis=1).reshape(4, -1)  # words 0, 1, 2, 3


class RandomStreams:
    """One stream of random numbers for each image of a batch.

    It has the methods of :class:`numpy.random.Generator` that the random transforms
    draw with, and gives arrays (n,), one number for each image. The numbers of an image
    are a function of its address: not of the other images of its batch, nor of what
    other steps draw.

    Args:
        seeds: (n,) seeds of the run, >= 0; what exceeds 64 bits is cut off.
        epochs: (n,) epochs, in [0, 2^32).
        images: (n,) places in the dataset, in [0, 2^32).
        view: Which view, in [0, 2^16).
        step: Which step of that view's pipeline draws, in [0, 2^16).
    """

    def __init__(self, seeds: Sequence[int], epochs: Sequence[int],
                 images: Sequence[int], view: int, step: int) -> None:
        words = np.array([seed % 2**64 for seed in seeds], np.uint64)
        self._keys = np.stack((words & _LOW, words >> _HALF))  # (2, n)
        self._counters = np.zeros((4, len(words)), np.uint64)
        self._counters[1:] = np.broadcast_arrays(view << 16 | step, images, epochs)
        self._words: list[np.ndarray] = []  # of the last block, not yet used

    def __len__(self) -> int:
        return self._keys.shape[1]

    def _next(self) -> np.ndarray:
        if not self._words:
            # A few blocks in one call: small arrays cost their calls.
            counters = np.tile(self._counters, _BLOCKS)  # (4, _BLOCKS * n)
            counters[0] += np.repeat(np.arange(_BLOCKS, dtype=np.uint64), len(self))
            words = philox4x32(counters, np.tile(self._keys, _BLOCKS))
            words = words.reshape(4, _BLOCKS, len(self)).swapaxes(0, 1)
            self._words = list(words.reshape(4 * _BLOCKS, len(self)))
            self._counters[0] += np.uint64(_BLOCKS)
        return self._words.pop(0)

    def of(self, chosen: np.ndarray) -> 'RandomStreams':
        """The streams of some images, where they are now.

        Args:
            chosen: (n,) bool.
        """
        some = object.__new__(RandomStreams)
        some._keys = self._keys[:, chosen]
        some._counters = self._counters[:, chosen]
        some._words = [words[chosen] for words in self._words]
        return some

    def random(self) -> np.ndarray:
        """Uniform in [0, 1), in steps of 2^-32."""
        return self._next() * 2.0**-32

    def uniform(self, low: float, high: float) -> np.ndarray:
        """Uniform in [low, high)."""
        return low + (high - low) * self.random()

    def integers(self, high: Drawn) -> np.ndarray:
        """Whole numbers from 0 to ``high`` - 1, ``high`` in [1, 2^32], maybe (n,).

        Probabilities differ by 2^-32 at most.
        """
        return (self._next() * np.asarray(high, np.uint64) >> _HALF).astype(np.int64)

    def permutation(self, length: int) -> np.ndarray:
        """Orders of 0 to ``length`` - 1, (n, length)."""
        keys = np.stack([self._next() for _ in range(length)], axis=1)
        return keys.argsort(axis=1, kind='stable')
