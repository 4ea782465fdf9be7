"""Moments, extremes and percentiles of bands, image by image."""

import numpy as np

SHARES = (1, 25, 50, 75, 99)  # percentiles
_LOWEST, _HIGHEST = -(2**15), 2**16 - 1  # of whole numbers that are counted one by one
_DROPPED = 14  # last bits of a float32's 32 that a bin leaves out; 9 bits of its digits stay


class BandStatistics:
    """Count, extremes, moments and histograms of C bands, image by image.

    Moments are exact to float64's rounding: each image has its own mean, and two sets are
    joined by the formulas of Chan, Golub and LeVeque. Percentiles are exact for whole numbers
    from -32,768 to 65,535. Of sets with other values they are ends of bins that are at most
    1/512 of the value wide.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37 (1983), eq. (2.1).
    """

    def __init__(self, bands: int) -> None:
        self.count = 0  # pixels
        self.mean = np.zeros(bands)
        self.squares = np.zeros(bands)  # sums of squared differences from the mean
        self.lowest, self.highest = np.full(bands, np.inf), np.full(bands, -np.inf)
        self.whole = np.zeros((bands, _HIGHEST - _LOWEST + 1), np.int64)
        self.bins = np.zeros((0, 2 ** (32 - _DROPPED)), np.int64)  # once there are fractions

    def add(self, img: np.ndarray) -> None:
        """Add an image, (H, W, C)."""
        values = img.reshape(-1, img.shape[2]).T  # (C, HW)
        exact = values.astype(np.float64)
        count, mean = exact.shape[1], exact.mean(1)
        squares = np.square(exact - mean[:, None]).sum(1)
        total, step = self.count + count, mean - self.mean
        self.mean = self.mean + step * (count / total)
        self.squares = self.squares + squares + step**2 * (self.count * count / total)
        self.count = total
        self.lowest = np.minimum(self.lowest, exact.min(1))
        self.highest = np.maximum(self.highest, exact.max(1))
        inside = exact.min() >= _LOWEST and exact.max() <= _HIGHEST
        if inside and (values.dtype == np.uint8 or (exact == np.floor(exact)).all()):
            for counts, band in zip(self.whole, exact.astype(np.int64) - _LOWEST):
                counts += np.bincount(band, minlength=len(counts))
            return
        if not len(self.bins):
            self.bins = np.zeros((len(mean), self.bins.shape[1]), np.int64)
        for counts, band in zip(self.bins, _bin_of(values.astype(np.float32))):
            counts += np.bincount(band, minlength=len(counts))

    @property
    def std(self) -> np.ndarray:
        """(C,) of all pixels, as NumPy's ``std``."""
        return np.sqrt(self.squares / self.count)

    def percentiles(self) -> np.ndarray:
        """(len(SHARES), C): the smallest value that at least this share of pixels does not exceed.

        It is NumPy's percentile with ``method='inverted_cdf'``.
        """
        numbers = np.arange(_LOWEST, _HIGHEST + 1, dtype=np.float32)
        counts = self.whole
        if len(self.bins):
            bins = self.bins.copy()
            for row, band in zip(bins, self.whole):
                np.add.at(row, _bin_of(numbers), band)
            numbers, counts = _start_of(np.arange(bins.shape[1])), bins
        sums = counts.cumsum(1)  # (C, bins)
        ranks = [np.ceil(share / 100 * self.count).clip(1) for share in SHARES]
        found = [[numbers[np.searchsorted(band, rank)] for band in sums] for rank in ranks]
        return np.clip(np.array(found, np.float64), self.lowest, self.highest)


def _bin_of(values: np.ndarray) -> np.ndarray:
    """Numbers of bins, in the order of the values: a float32's first bits, made monotone."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32)  # + 0: no -0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
    return (ordered >> _DROPPED).astype(np.int64)


def _start_of(bins: np.ndarray) -> np.ndarray:
    """The value in a bin that is nearest to zero or, below zero, farthest from it."""
    ordered = bins.astype(np.uint32) << _DROPPED
    bits = np.where(ordered >> 31, ordered & np.uint32(2**31 - 1), ~ordered)
    return bits.view(np.float32)
