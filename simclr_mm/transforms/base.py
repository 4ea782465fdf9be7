"""What the random transforms of one view have in common."""

import math
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from simclr_mm.errors import UserError

from .random_streams import RandomStream, RandomStreams

_UINT8 = np.dtype(np.uint8)  # compared in a third of the time of the type


def check_image(img: Any, owner: str) -> None:
    """Raise unless ``img`` is what every transform here works on.

    Raises:
        ValueError: img is not a uint8 array of shape (H, W, 3).
    """
    if (
        isinstance(img, np.ndarray)
        and img.dtype == _UINT8
        and img.ndim == 3
        and img.shape[2] == 3
        and img.size
    ):
        return
    got = f'{img.dtype} of shape {img.shape}' if isinstance(img, np.ndarray) else type(img).__name__
    raise UserError(
        f"{owner}: results['img'] must be uint8 BGR in [0, 255] of shape (H, W, 3), "
        f"got {got}. Files: type='simclr_mm.LoadImageFromFile' without to_float32 "
        f'gives that. Arrays: cv2.cvtColor(img, cv2.COLOR_GRAY2BGR) for a grey one, '
        f"(255 * img).round().astype('uint8') for floats in [0, 1]."
    )


def check_prob(prob: float, owner: str, key: str = 'prob') -> None:
    if not 0 <= prob <= 1:
        raise UserError(
            f'{owner}: {key} must be a probability in [0, 1], got {prob}: write 0 for '
            f'never, 1 for always.'
        )


def check_range(
    value: Any, owner: str, key: str, example: tuple, highest: float = math.inf, zero: bool = False
) -> None:
    """Raise unless ``value`` is a pair 0 < value[0] <= value[1] <= highest.

    Args:
        value: What a config says.
        owner: Class name for the message.
        key: Argument name for the message.
        example: A good value for the message.
        highest: Bound of the pair.
        zero: Whether value[0] may be 0.
    """
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not (pair and 0 <= value[0] <= value[1] <= highest and (zero or value[0] > 0)):
        raise UserError(
            f'{owner}: {key} must be a pair with 0 {"<=" if zero else "<"} lowest <= '
            f'highest <= {highest:g}, got {value}: write {key}={example}.'
        )


class RandomTransform(BaseTransform):
    """Applies itself to ``results['img']`` with a probability.

    Draws only from ``results['rng']``, the stream that TwoViews gives to each step of a
    view, so that a view depends on nothing but (seed, epoch, image, view). Used without
    TwoViews it draws from fresh entropy. Where ``results['view_params_one']`` is a
    dict, what was drawn is kept there under the class name: a dict, or None if not
    applied.

    Args:
        prob: Probability in [0, 1] of being applied to an image.
    """

    def __init__(self, prob: float) -> None:
        check_prob(prob, type(self).__name__)
        self.prob = prob

    def apply(self, img: np.ndarray, rng: RandomStream) -> tuple[np.ndarray, dict]:
        """Draw parameters and apply them.

        Args:
            img: (H, W, 3) uint8 BGR, not written to.
            rng: The only source of randomness.

        Returns:
            The new image and what was drawn.
        """
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        name = type(self).__name__
        check_image(results['img'], name)
        rng = results.get('rng')
        if rng is None:
            rng = RandomStream.unseeded()
        params = None
        if rng.random() < self.prob:
            results['img'], params = self.apply(results['img'], rng)
            results['img_shape'] = results['img'].shape[:2]
        if 'view_params_one' in results:
            results['view_params_one'][name] = params
        return results


class DeviceTransform(RandomTransform):
    """A random transform that can leave its work to the device.

    It draws and applies apart, and :mod:`simclr_mm.augment` has an operation of its
    name for batches, which gives the same picture for the same parameters.
    """

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        """Parameters for an image of this height and width in pixels."""
        raise NotImplementedError

    def draw_batch(self, height: int, width: int, streams: RandomStreams) -> dict:
        """What ``draw`` gives, for n images at once: arrays (n,), or one for all.

        By default it is ``draw`` itself, whose arithmetic streams pass through.
        """
        return self.draw(height, width, streams)

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        """Apply drawn parameters.

        Args:
            img: (H, W, 3) uint8 BGR, not written to.
            params: From ``draw``.
        """
        raise NotImplementedError

    def apply(self, img: np.ndarray, rng: RandomStream) -> tuple[np.ndarray, dict]:
        params = self.draw(*img.shape[:2], rng)
        return self.paint(img, params), params

    def record(self, size: int, rng: RandomStream) -> dict | None:
        """Draw what ``transform`` would draw, for an image of this side in pixels.

        Returns:
            The parameters, None where the transform would not be applied.
        """
        return self.draw(size, size, rng) if rng.random() < self.prob else None
