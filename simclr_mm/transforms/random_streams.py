"""Random numbers by address: those of a view are a function of what it is.

n images of a batch.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_ADDRESS = struct.Struct('<QQQQ')  # seed, epoch, image, view
_WORDS = struct.Struct('<42I')
_BLOCK = _WORDS.size  # 168 bytes: what SHAKE-128 gives by one turn of its permutation


class RandomStream:
    """The random numbers of one step of one view.

    SHAKE-128 (FIPS 202) of the view's address gives each stream 42 words of 32 bits. The
    hash of these gives the next 42, and so on. To hash costs a microsecond; to seed NumPy's
    generator costs thirteen and more, and a view takes few numbers.

    The methods are those of :class:`numpy.random.Generator` that views are drawn with.
    For other distributions there is :meth:`generator`.

    Args:
        block: 168 random bytes.
    """

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._words: Iterator[int] = iter(_WORDS.unpack(block))

    @classmethod
    def unseeded(cls) -> 'RandomStream':
        """Another one each time, by the operating system's entropy."""
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
        """A generator of NumPy that the next words seed."""
        return np.random.default_rng([self.next_word() for _ in range(4)])


class RandomStreams:
    """The streams of one step of n views: methods give arrays, (n,) or (n, length).

    Each view's numbers are those of its own :class:`RandomStream`. There is no
    ``generator``: NumPy's would give all views the same numbers.

    Args:
        blocks: (n, 42) words, uint32.
    """

    def __init__(self, blocks: np.ndarray) -> None:
        self._blocks = blocks
        self._words = iter(blocks.T)

    def __len__(self) -> int:
        return len(self._blocks)

    def next_word(self) -> np.ndarray:
        for words in self._words:
            return words.astype(np.int64)
        self._blocks = _words(_hash(block.tobytes(), 1) for block in self._blocks)[:, 0]
        self._words = iter(self._blocks.T)
        return self.next_word()

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


def view_streams(seed: int, epoch: int, image: int, view: int, count: int) -> list[RandomStream]:
    """The streams of one view: of its crop, and of each step after it.

    Args:
        seed: Of the run. Of a number beyond 64 bits the low ones count.
        epoch: In [0, 2^64), as the next two.
        image: Place in the dataset.
        view: Which view of the image.
        count: How many streams. More leave the first ones what they are.
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
    """(n, count, 42) of n times count blocks."""
    blocks = list(blocks)
    words = np.frombuffer(b''.join(blocks), '<u4')
    return words.reshape(len(blocks), -1, _BLOCK // 4)
