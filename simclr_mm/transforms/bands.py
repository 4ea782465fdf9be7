"""Augmentations of images with any number of bands, uint8 or float32.

C bands. Strengths are relative to numbers that a config gives for each band, in the units of the
files, as ``simclr-mm band-statistics`` measures them. They are in the order of ``results['img']``:
that of the file for LoadBands, BGR for LoadImageFromFile.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, check_range
from .batched import bands as batched
from .batched.pixels import on_rows
from .random_streams import RandomStream


class BandTransform(DeviceTransform):
    """A transform whose parameters are lists of C numbers.

    ``paint_batch`` gets each parameter as (m, C), in the order of the bands on the device. An
    image, uint8 BGR included, is a batch of one for it.

    Args:
        key: Name of the argument that has a number for each band, for messages.
        values: That argument.
        prob: Probability.

    Attributes:
        per_band: Name and type of each parameter.
    """

    any_bands = True
    per_band: ClassVar[dict[str, type]]
    draw_batch = DeviceTransform.draw_arrays

    def __init__(self, key: str, values: Sequence[float], prob: float) -> None:
        super().__init__(prob)
        numbers = isinstance(values, Sequence) and all(_is_number(value) for value in values)
        if not (numbers and values):
            raise UserError(
                f'{type(self).__name__}: {key} must be a list of finite numbers, one for each '
                f'band, got {values!r}: write those that simclr-mm band-statistics prints.'
            )
        self.key, self.bands = key, len(values)
        self.columns = {  # type: ignore[misc]  # they depend on C
            f'{name}_{band}': kind
            for name, kind in self.per_band.items()
            for band in range(self.bands)
        }

    def check(self, img: np.ndarray) -> None:
        if img.shape[2] != self.bands:
            raise UserError(
                f'{type(self).__name__}: {self.key} has {self.bands} numbers, but the image has '
                f'{img.shape[2]} band(s) of {img.dtype}: write a number for each band.'
            )

    def encode(self, params: dict) -> list:
        return [number for name in self.per_band for number in params[name]]

    def decode(self, numbers: Sequence[float]) -> dict:
        lists = {}
        for k, (name, kind) in enumerate(self.per_band.items()):
            lists[name] = [kind(x) for x in numbers[k * self.bands : (k + 1) * self.bands]]
        return lists

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        return DeviceTransform.paint(self, img, params)

    @classmethod
    def apply_batch(cls, images: Tensor, chosen: Tensor, numbers: Tensor) -> Tensor:
        rows = chosen.nonzero()[:, 0]
        count, bands = len(cls.per_band), images.shape[1]
        params = numbers[rows, : count * bands].unflatten(1, (count, bands))
        # The bands of the images are in the opposite order here.
        lists = params.flip(2).unbind(1)  # (m, C) each
        paint = cls.paint_batch
        assert paint is not None  # as in DeviceTransform
        return on_rows(images, rows, lambda some: paint(some, *lists))

    def _repeated(self, rng: RandomStream, low: float, high: float, shared: bool) -> list:
        """A number for each band, uniform in [low, high), drawn once if ``shared``."""
        if shared:
            return [rng.uniform(low, high)] * self.bands
        return [rng.uniform(low, high) for _ in range(self.bands)]


@TRANSFORMS.register_module()
class BandJitter(BandTransform):
    """Gain, contrast and brightness of each band, in this order.

    A value x of a band becomes g (m + c (x - m)) + b, where m is the mean of the band in the
    view. uint8 is rounded and clipped once, float32 never.

    Args:
        std: C standard deviations, > 0, in the units of the files.
        brightness: At least 0. b is uniform in [-brightness, brightness] times the band's std.
        contrast: At least 0. c is uniform in [max(0, 1 - contrast), 1 + contrast].
        gain: As contrast, for g, such as another exposure. 0 for values without a natural zero.
        shared: One g and c, and one share b / std, for all bands, so that their relations stay.
        prob: Probability.
    """

    per_band: ClassVar[dict[str, type]] = dict(gain=float, contrast=float, brightness=float)
    paint_batch = staticmethod(batched.jitter)

    def __init__(
        self,
        std: Sequence[float],
        brightness: float = 0.4,
        contrast: float = 0.4,
        gain: float = 0.0,
        shared: bool = False,
        prob: float = 0.8,
    ) -> None:
        super().__init__('std', std, prob)
        _check_std(std, 'BandJitter')
        for key, value in dict(brightness=brightness, contrast=contrast, gain=gain).items():
            if not (_is_number(value) and value >= 0):
                raise UserError(
                    f'BandJitter: {key} must be >= 0, got {value!r}: write 0 to leave it alone.'
                )
        self.std, self.brightness, self.contrast = std, brightness, contrast
        self.gain, self.shared = gain, shared

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        gain, contrast = (
            self._repeated(rng, max(0, 1 - width), 1 + width, self.shared)
            for width in (self.gain, self.contrast)
        )
        shares = self._repeated(rng, -self.brightness, self.brightness, self.shared)
        brightness = [share * std for share, std in zip(shares, self.std)]
        return dict(gain=gain, contrast=contrast, brightness=brightness)


@TRANSFORMS.register_module()
class BandNoise(BandTransform):
    """Add independent normal noise to every value, as strong as each band's std asks.

    The device uses the same standard deviations, but other noise.

    Args:
        std: C standard deviations of the bands, > 0, in the units of the files.
        strength: Lowest and highest standard deviation of the noise as a share of ``std``, drawn
            uniformly for each view. RandomGaussianNoise's default has 25 of an ImageNet std of 58.
        prob: Probability.
    """

    per_band: ClassVar[dict[str, type]] = dict(std=float, seed=int)
    paint_batch = staticmethod(batched.noise)

    def __init__(
        self, std: Sequence[float], strength: tuple[float, float] = (0.0, 0.4), prob: float = 0.5
    ) -> None:
        super().__init__('std', std, prob)
        _check_std(std, 'BandNoise')
        check_range(strength, 'BandNoise', 'strength', (0, 0.4), zero=True)
        self.std, self.strength = std, strength

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        share = rng.uniform(*self.strength)
        seeds = [rng.integers(2**32) for _ in self.std]
        return dict(std=[share * std for std in self.std], seed=seeds)


@TRANSFORMS.register_module()
class BandDrop(BandTransform):
    """Replace whole bands by a constant.

    albumentations has it as ChannelDropout, with one constant for all bands.

    Args:
        fill: C values in the units of the files. The means of the bands become 0 when
            ViewsPreprocessor normalises.
        count: Lowest and highest number of bands that are dropped, from 1 to C - 1.
        prob: Probability.
    """

    per_band: ClassVar[dict[str, type]] = dict(dropped=bool, fill=float)
    paint_batch = staticmethod(batched.drop)

    def __init__(
        self, fill: Sequence[float], count: tuple[int, int] = (1, 1), prob: float = 0.2
    ) -> None:
        super().__init__('fill', fill, prob)
        check_range(count, 'BandDrop', 'count', (1, 1), highest=self.bands - 1)
        self.fill, self.count = fill, count

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        low, high = self.count
        count = low + rng.integers(high - low + 1)
        # Of a random order, the places of the numbers below count are a random choice.
        order = np.asarray(rng.permutation(self.bands))  # (C,), or (n, C) of a batch
        dropped = order < np.expand_dims(count, -1)
        return dict(dropped=list(np.moveaxis(dropped, -1, 0)), fill=self.fill)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _check_std(std: Sequence[float], owner: str) -> None:
    if min(std) <= 0:
        raise UserError(
            f'{owner}: std must be above 0, got {list(std)}: a band that is constant in all '
            'images tells nothing, so leave it out with bands of simclr_mm.LoadBands.'
        )
