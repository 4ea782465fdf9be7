"""Colour operations on uint8 BGR with the results of torchvision on PIL images.

Every function takes an image, (H, W, 3) uint8, and returns a new one, clipped. PIL cuts
the fraction off and OpenCV rounds, so ``_FLOOR`` is added. It is a little above -0.5, so
that whole numbers stay unchanged.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, Transform, check_prob
from .batched.color import NOTHING, color_jitter, grayscale
from .random_streams import RandomStream, RandomStreams

_FLOOR = -0.499
_NAMES = ('brightness', 'contrast', 'saturation', 'hue')
# Exactly these factors arise only from a range of zero width, which disables an operation.
_UNCHANGED = (1.0, 1.0, 1.0, 0.0)


def to_gray(img: np.ndarray) -> np.ndarray:
    """Luma (ITU-R 601) in all three channels."""
    gray = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)  # (H, W)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)


def adjust_brightness(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black: factor 0 is black, 1 the image."""
    return cv2.convertScaleAbs(img, alpha=factor, beta=_FLOOR)


def adjust_contrast(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the mean luma of the image: factor 0 is flat grey, 1 the image."""
    blue, green, red, _ = cv2.mean(img)
    mean = int(0.114 * blue + 0.587 * green + 0.299 * red + 0.5)
    return cv2.addWeighted(img, factor, img, 0, mean * (1 - factor) + _FLOOR)


def adjust_saturation(img: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the grey image: factor 0 is grey, 1 the image."""
    return cv2.addWeighted(img, factor, to_gray(img), 1 - factor, _FLOOR)


def adjust_hue(img: np.ndarray, factor: float) -> np.ndarray:
    """Turn the colour circle by a share of a full turn, in [-0.5, 0.5]."""
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV_FULL)  # hue in 256 steps
    # 255, not 256, and truncated, as in torchvision. uint8 wraps around.
    # Adding a contiguous row of (h, 0, 0) takes a third of the time of hsv[..., 0] += h.
    turn = np.zeros((img.shape[1], 3), np.uint8)  # (W, 3)
    turn[:, 0] = int(factor * 255) % 256
    hsv += turn
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL, dst=hsv)


@TRANSFORMS.register_module()
class ColorJitter(DeviceTransform):
    """Brightness, contrast, saturation and hue in random order.

    Args:
        brightness: b >= 0; the factor is uniform in [max(0, 1 - b), 1 + b].
        contrast: As brightness.
        saturation: As brightness.
        hue: h in [0, 0.5]; the shift is uniform in [-h, h] turns of the circle.
        prob: Probability of applying all of them, else none.
    """

    of_colours = True
    instead = 'write simclr_mm.BandJitter'
    # The factors, then the order of application as indices of the names.
    columns = dict.fromkeys((*_NAMES, 'first', 'second', 'third', 'fourth'), float)

    def __init__(
        self, brightness: float, contrast: float, saturation: float, hue: float, prob: float = 1.0
    ) -> None:
        super().__init__(prob)
        self.operations = {}  # name: function, lowest and highest factor
        for name, function, width in (
            ('brightness', adjust_brightness, brightness),
            ('contrast', adjust_contrast, contrast),
            ('saturation', adjust_saturation, saturation),
        ):
            if width < 0:
                raise UserError(
                    f'{type(self).__name__}: {name} must be >= 0, got {width}: write 0 '
                    f'to leave it alone, 0.8 for factors in [0.2, 1.8].'
                )
            self.operations[name] = function, max(0, 1 - width), 1 + width
        if not 0 <= hue <= 0.5:
            raise UserError(
                f'{type(self).__name__}: hue must be in [0, 0.5], got {hue}: write 0.2 '
                f'for up to a fifth of a turn of the colour circle either way.'
            )
        self.operations['hue'] = adjust_hue, -hue, hue
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.hue = hue

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        """The drawn factors by name, in the order of application."""
        order = rng.permutation(4)
        params = [
            (name, rng.uniform(low, high)) for name, (_, low, high) in self.operations.items()
        ]
        return dict(params[k] for k in order)

    def draw_batch(self, height: int, width: int, streams: RandomStreams) -> list[np.ndarray]:
        order = streams.permutation(4)  # (n, 4)
        factors = [streams.uniform(low, high) for _, low, high in self.operations.values()]
        return [*factors, *order.T]

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        for name, factor in params.items():
            function, low, high = self.operations[name]
            if low < high:
                img = function(img, factor)
        return img

    def encode(self, params: dict) -> list[float]:
        return [*(params[name] for name in _NAMES), *map(_NAMES.index, params)]

    def decode(self, numbers: Sequence[float]) -> dict:
        return {_NAMES[int(k)]: numbers[int(k)] for k in numbers[4:8]}

    @staticmethod
    def paint_batch(images: Tensor, *numbers: Tensor) -> Tensor:
        factors, order = torch.stack(numbers, dim=1).split(4, dim=1)  # (n, 4) each
        order = order.long()
        idle = (factors == factors.new_tensor(_UNCHANGED)).gather(1, order)
        return color_jitter(images, factors, order.masked_fill(idle, NOTHING))

    @classmethod
    def apply_batch(cls, images: Tensor, chosen: Tensor, numbers: Tensor) -> Tensor:
        # Other images get factors without effect: cheaper than copying the chosen ones.
        nothing = numbers.new_tensor((*_UNCHANGED, 0, 1, 2, 3))
        numbers = torch.where(chosen[:, None], numbers[:, :8], nothing)
        return cls.paint_batch(images, *numbers.unbind(1))


@TRANSFORMS.register_module()
class RandomGrayscale(DeviceTransform):
    """Replace the colours by luma in three equal channels.

    Args:
        prob: Probability; 0.2 in the paper, Appendix A.
    """

    of_colours = True
    instead = 'write simclr_mm.BandJitter or simclr_mm.BandDrop'
    paint_batch = staticmethod(grayscale)
    draw_batch = DeviceTransform.draw_arrays

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        return to_gray(img)


@TRANSFORMS.register_module()
class ColorDistortion(Transform):
    """The colour part of SimCLR's augmentation, with one strength.

    Source: SimCLR, arXiv:2002.05709, Appendix A, "Color distortion": jitter of
    brightness, contrast and saturation by 0.8 s and of hue by 0.2 s, then grayscale.

    Args:
        strength: s in [0, 2.5]; 1 for ImageNet, 0.5 for CIFAR-10 (Appendix B.9). Above
            2.5 the hue would turn by more than half the circle.
        jitter_prob: Probability of the jitter.
        gray_prob: Probability of the grayscale.
    """

    def __init__(
        self, strength: float = 1.0, jitter_prob: float = 0.8, gray_prob: float = 0.2
    ) -> None:
        if not 0 <= strength <= 2.5:
            raise UserError(
                f'ColorDistortion: strength must be in [0, 2.5], got {strength}: write '
                f'1.0 for ImageNet, 0.5 for CIFAR-10, 0 for no jitter.'
            )
        check_prob(jitter_prob, 'ColorDistortion', 'jitter_prob')
        check_prob(gray_prob, 'ColorDistortion', 'gray_prob')
        self.strength, self.jitter_prob, self.gray_prob = strength, jitter_prob, gray_prob
        width = 0.8 * strength
        self.jitter = ColorJitter(width, width, width, 0.2 * strength, jitter_prob)
        self.gray = RandomGrayscale(gray_prob)

    def transform(self, results: dict) -> dict:
        return self.gray.transform(self.jitter.transform(results))
