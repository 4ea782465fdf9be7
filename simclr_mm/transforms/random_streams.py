"""Random numbers that are a function of an address: seed, epoch, image and view.

n images of a batch.
"""

import contextlib
import hashlib
import os
import random
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

_ADDRESS = struct.Struct('<QQQQ')  # seed, epoch, image, view
_WORDS = struct.Struct('<42I')
_BLOCK = _WORDS.size  # 168 bytes, the output of one permutation of SHAKE-128


class RandomStream:
    """The random numbers of one step of one view.

    SHAKE-128 (FIPS 202) of the view's address gives each stream 42 words of 32 bits. The
    hash of these words gives the next 42, and so on. A hash costs a microsecond. Seeding a
    NumPy generator costs 13 microseconds and more, and a view needs few numbers.

    The methods are the part of :class:`numpy.random.Generator` that views need. For other
    distributions use :meth:`generator`.

    Args:
        block: 168 random bytes.
    """

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._words: Iterator[int] = iter(_WORDS.unpack(block))

    @classmethod
    def unseeded(cls) -> 'RandomStream':
        """A new stream from the operating system's entropy."""
        return cls(os.urandom(_BLOCK))

    def next_word(self) -> int:
        """32 random bits."""
        for word in self._words:
            return word
        self._block = _hash(self._block, 1)
        self._words = iter(_WORDS.unpack(self._block))
        return next(self._words)

    def random(self) -> float:
        """Uniform in [0, 1), in steps of 2^-32."""
        return self.next_word() * 2.0**-32

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.random()

    def integers(self, high: int) -> int:
        """Uniform from 0 to ``high`` - 1, ``high`` in [1, 2^32].

        Probabilities differ by 2^-32 at most.
        """
        return self.next_word() * high >> 32

    def permutation(self, length: int) -> list[int]:
        """A random order of 0 to ``length`` - 1."""
        keys = [self.next_word() for _ in range(length)]
        return sorted(range(length), key=keys.__getitem__)

    def generator(self) -> np.random.Generator:
        """A NumPy generator, seeded with the next words."""
        return np.random.default_rng([self.next_word() for _ in range(4)])


class RandomStreams:
    """The streams of one step of n views. Methods return arrays, (n,) or (n, length).

    Each view's numbers equal those of its :class:`RandomStream`. There is no
    ``generator``, because one NumPy generator would give all views the same numbers.

    Args:
        blocks: (n, 42) words, uint32.
    """

    def __init__(self, blocks: np.ndarray) -> None:
        self._blocks = blocks
        self._used = 0  # words of each

    def __len__(self) -> int:
        return len(self._blocks)

    def next_word(self) -> np.ndarray:
        if self._used == self._blocks.shape[1]:
            self._blocks = _words(_hash(block.tobytes(), 1) for block in self._blocks)[:, 0]
            self._used = 0
        self._used += 1
        return self._blocks[:, self._used - 1].astype(np.int64)

    def singly(self) -> list[RandomStream]:
        """A RandomStream for each view, which continues from here."""
        streams = [RandomStream(block.tobytes()) for block in self._blocks]
        for stream in streams:
            for _ in range(self._used):
                stream.next_word()
        return streams

    def random(self) -> np.ndarray:
        return self.next_word() * 2.0**-32

    def uniform(self, low: float, high: float) -> np.ndarray:
        return low + (high - low) * self.random()

    def integers(self, high: int | np.ndarray) -> np.ndarray:
        words = self.next_word().astype(np.uint64) * np.asarray(high, np.uint64)
        return (words >> np.uint64(32)).astype(np.int64)

    def permutation(self, length: int) -> np.ndarray:
        keys = np.stack([self.next_word() for _ in range(length)], axis=1)
        return keys.argsort(axis=1, kind='stable')


@contextlib.contextmanager
def seeded_globals(rng: RandomStream) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch's CPU generator, then restore them.

    For transforms of other packages, which draw from these generators.
    """
    seed = rng.next_word()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def view_streams(seed: int, epoch: int, image: int, view: int, count: int) -> list[RandomStream]:
    """The streams of one view: one for its crop, and one for each step after it.

    Only the low 64 bits of a seed count. Epoch, image (its index in the dataset) and view are
    in [0, 2^64). A higher ``count`` does not change the first streams.
    """
    blocks = _blocks_of(seed, epoch, image, view, count)
    starts = range(0, len(blocks), _BLOCK)
    return [RandomStream(blocks[start : start + _BLOCK]) for start in starts]


def batch_streams(
    seeds: Sequence[int], epochs: Sequence[int], images: Sequence[int], view: int, count: int
) -> list[RandomStreams]:
    """:func:`view_streams` of one view of n images, with (n,) seeds, epochs and images."""
    words = _words(_blocks_of(*address, view, count) for address in zip(seeds, epochs, images))
    return [RandomStreams(words[:, k]) for k in range(count)]


def _blocks_of(seed: int, epoch: int, image: int, view: int, count: int) -> bytes:
    # int() because NumPy's integers cannot hold 2^64.
    return _hash(_ADDRESS.pack(int(seed) % 2**64, epoch, image, view), count)


def _hash(source: bytes, count: int) -> bytes:
    return hashlib.shake_128(source).digest(count * _BLOCK)


def _words(blocks: Iterable[bytes]) -> np.ndarray:
    """Blocks as (n, count, 42) words."""
    blocks = list(blocks)
    words = np.frombuffer(b''.join(blocks), '<u4')
    return words.reshape(len(blocks), -1, _BLOCK // 4)
