"""Groups of images: their numbers, an own split that keeps them whole, and positives from them.

N images of the dataset.
"""

import hashlib

import numpy as np

from simclr_mm.class_balance import draw_of_each_class
from simclr_mm.transforms.random_streams import RandomStream

ALONE = -1  # the number of every image that is in no group


def group_number(name: str | None) -> int:
    """A number for a group's name, the same in every dataset and run; -1 for no name."""
    if not name:
        return ALONE
    digest = hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1  # 63 bits, so that it is not negative


def held_out(classes: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw images to hold out.

    Args:
        classes: (N,) name of each image's class; '' for none.
        groups: (N,) number of each image's group.
        share: In (0, 1).
        seed: Seed of the draw.

    Returns:
        (N,) bool. With groups, whole groups in a random order, as many as come nearest to the
        share, and at least one in each part if there are two. Without groups the share of each
        class, rounded.
    """
    if (groups == ALONE).all():
        labels = np.unique(classes, return_inverse=True)[1]
        rows = draw_of_each_class(labels, lambda size: int(share * size + 0.5), seed)
        return np.isin(np.arange(len(groups)), rows)
    # An image in no group is a unit by itself.
    units = np.where(groups == ALONE, -1 - np.arange(len(groups)), groups)
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    error = np.abs(sizes[order].cumsum() - share * len(groups))
    count = min(int(error.argmin()) + 1, max(1, len(sizes) - 1))
    return np.isin(unit, order[:count])


class GroupMates:
    """For each image, the others of its group that may be its positive.

    Args:
        groups: (N,) number of each image's group.
        times: (N,) when each image was taken, in any unit.
        window: The largest difference of times of an image and its mate. None: any.
    """

    def __init__(self, groups: np.ndarray, times: np.ndarray, window: float | None) -> None:
        self.rows = np.lexsort((times, groups))  # (N,) by group, and by time in it
        self.place = np.empty(len(groups), np.int64)
        self.place[self.rows] = np.arange(len(groups))
        ordered, when = groups[self.rows], times[self.rows]
        # The places [first, end) of each place's group, and within the window.
        self.first = np.searchsorted(ordered, ordered)
        self.end = np.searchsorted(ordered, ordered, side='right')
        self.first[ordered == ALONE] = np.flatnonzero(ordered == ALONE)
        self.end[ordered == ALONE] = np.flatnonzero(ordered == ALONE) + 1
        if window is not None:
            for start in np.unique(self.first):
                part = slice(start, self.end[start])
                self.first[part] = start + np.searchsorted(when[part], when[part] - window)
                self.end[part] = start + np.searchsorted(when[part], when[part] + window, 'right')

    def alone(self) -> int:
        """Images without a mate."""
        return int((self.end - self.first == 1).sum())

    def draw(self, row: int, rng: RandomStream) -> int:
        """The row of one of the image's mates, or its own if it has none."""
        place = self.place[row]
        first, others = self.first[place], self.end[place] - self.first[place] - 1
        if not others:
            return row
        drawn = first + rng.integers(int(others))
        return int(self.rows[drawn + (drawn >= place)])
