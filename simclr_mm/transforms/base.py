"""Base classes and checks of the transforms."""

import inspect
import math
import numbers
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from simclr_mm.errors import UserError

from .batched.pixels import on_rows
from .batched.views_to_make import TWINS
from .random_streams import RandomStream, RandomStreams, view_streams

_UINT8 = np.dtype(np.uint8)  # comparing with it takes a third of the time of np.uint8

# Side of a view in pixels. OpenCV's own limit is 32767.
_LARGEST_SIDE = 2**14

# The view number of draws before TwoViews. No view has it.
_BEFORE_VIEWS = 2**31


def is_bgr(img: np.ndarray) -> bool:
    """Whether an image (H, W, C) has three bands of uint8, as BGR has."""
    return img.shape[2] == 3 and img.dtype == _UINT8


def check_image(img: Any, owner: str) -> None:
    """Raise unless ``img`` is a uint8 or float32 array of shape (H, W, C)."""
    if (
        isinstance(img, np.ndarray)
        and img.ndim == 3
        and img.size
        and (img.dtype == _UINT8 or img.dtype == np.float32)
    ):
        return
    got = f'{img.dtype} of shape {img.shape}' if isinstance(img, np.ndarray) else type(img).__name__
    raise UserError(
        f"{owner}: results['img'] must be uint8 or float32 of shape (H, W, bands), BGR if it has "
        f"colours, got {got}. For files, write type='simclr_mm.LoadImageFromFile'. For arrays, "
        f'write img[..., None] for a single band, cv2.cvtColor(img, cv2.COLOR_GRAY2BGR) for a '
        f'grey one in an RGB config, and img.astype(np.float32) for 16 bits, which loses nothing.'
    )


def to_planes(img: np.ndarray) -> Tensor:
    """An image (H, W, C) as ``paint_batch`` takes it, (1, C, H, W) with the last band first."""
    return torch.from_numpy(img).permute(2, 0, 1).flip(0).contiguous()[None]


def to_bands(images: Tensor) -> np.ndarray:
    """The inverse of :func:`to_planes`."""
    return images[0].flip(0).permute(1, 2, 0).contiguous().numpy()


def check_prob(prob: float, owner: str, key: str = 'prob') -> None:
    if not 0 <= prob <= 1:
        raise UserError(f'{owner}: {key} must be in [0, 1], 0 for never, 1 for always, got {prob}.')


def check_size(size: Any, owner: str) -> None:
    if not isinstance(size, int) or not 1 <= size <= _LARGEST_SIDE:
        raise UserError(
            f'{owner}: size must be a whole number of pixels from 1 to {_LARGEST_SIDE}, got '
            f'{size}: write 224 for ImageNet, 32 for CIFAR-10.'
        )


def check_range(
    value: Any, owner: str, key: str, example: tuple, highest: float = math.inf, zero: bool = False
) -> None:
    """Raise unless ``value`` is a pair 0 < value[0] <= value[1] <= highest.

    ``zero`` allows value[0] = 0. ``owner``, ``key`` and ``example`` are for the message.
    """
    pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(is_finite, value))
    if not (pair and 0 <= value[0] <= value[1] <= highest and (zero or value[0] > 0)):
        raise UserError(
            f'{owner}: {key} must be a pair with 0 {"<=" if zero else "<"} lowest <= '
            f'highest <= {highest:g}, got {value}: write {key}={example}.'
        )


def is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


class Transform(BaseTransform):
    """A transform whose ``repr`` shows its parameters."""

    def __repr__(self) -> str:
        names = inspect.signature(type(self)).parameters
        shown = (f'{name}={getattr(self, name)!r}' for name in names if hasattr(self, name))
        return f'{type(self).__name__}({", ".join(shown)})'


class RandomTransform(Transform):
    """A transform of ``results['img']`` that applies with a probability.

    It draws only from ``results['rng']``, the stream that TwoViews gives to each step of a view. So
    a view depends only on (seed, epoch, image, view). Before TwoViews, or without it, all such
    transforms draw on from one stream, for the seed and epoch that simclr_mm.ResumableSampler sends
    along; without these, from fresh entropy. If ``results`` has the dict ``view_params_one``, the
    drawn parameters are stored there under the class name; None if the transform was not applied.

    Args:
        prob: Probability in [0, 1] of being applied to an image.

    Attributes:
        any_bands: Whether it works on images of any number of bands, uint8 or float32. If not, it
            gets uint8 BGR only; all others are refused.
        of_colours: Whether it takes the three bands for blue, green and red.
        instead: What to do for those others, for the message.
    """

    any_bands: ClassVar[bool] = False
    of_colours: ClassVar[bool] = False
    instead: ClassVar[str] = 'leave it out, or write any_bands = True in its class'

    def __init__(self, prob: float) -> None:
        check_prob(prob, type(self).__name__)
        self.prob = prob

    def check(self, img: np.ndarray) -> None:
        """Raise a UserError if it cannot work on an image, (H, W, C) uint8 or float32."""
        if not (self.any_bands or is_bgr(img)):
            raise UserError(
                f'{type(self).__name__} needs 3 bands of uint8, BGR, and the image has '
                f'{img.shape[2]} of {img.dtype}: {self.instead}.'
            )

    def apply(self, img: np.ndarray, rng: RandomStream) -> tuple[np.ndarray, dict]:
        """Draw parameters from ``rng`` alone and apply them to an image, which is not written to.

        Returns the new image, of the same bands and type, and the drawn parameters.
        """
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        name = type(self).__name__
        check_image(results['img'], name)
        self.check(results['img'])
        index: Any = results.get('sample_idx')
        if 'rng' not in results and hasattr(index, 'seed'):
            (results['rng'],) = view_streams(index.seed, index.epoch, index.place, _BEFORE_VIEWS, 1)
        rng = results.get('rng') or RandomStream.unseeded()
        params = None
        if rng.random() < self.prob:
            results['img'], params = self.apply(results['img'], rng)
            results['img_shape'] = results['img'].shape[:2]
        if 'view_params_one' in results:
            results['view_params_one'][name] = params
        return results


class DeviceTransform(RandomTransform):
    """A random transform that the device can apply to a whole batch.

    It draws and applies in two steps. ``draw`` and ``paint`` handle one image on the host;
    ``paint_batch`` handles images on the device. The drawn parameters travel to the device
    as numbers, one for each of ``columns``. A subclass that overrides ``paint`` without
    ``paint_batch`` stays on the host.

    ``paint`` is for uint8 BGR. Any other image is a batch of one for ``paint_batch``, on the host
    too, so both give the same.

    Attributes:
        columns: Name and type (float, int or bool) of each parameter that ``draw`` returns.
        paint_batch: A static method. It takes (m, C, S, S) images on the device, their bands in
            the opposite order, so BGR is RGB here, and, in the order of ``columns``, (m,)
            float64 parameters on the host. It returns images of the same kind, equal to the
            result of ``paint``.
    """

    columns: ClassVar[Mapping[str, type]] = {}
    paint_batch: ClassVar[Callable[..., Tensor] | None] = None
    code: ClassVar[int]  # stands for the class in a row of numbers

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        # The parent's batched version does not do what the child's overrides do.
        if 'draw' in own and 'draw_batch' not in own:
            cls.draw_batch = DeviceTransform.draw_batch  # type: ignore[method-assign]  # as above
        if 'paint_batch' not in own and {'paint', 'apply', 'transform'} & own.keys():
            cls.paint_batch = None
            cls.any_bands = own.get('any_bands', False)
        # Equal in every process: in the workers of a script its module is __mp_main__.
        module = cls.__module__.replace('__mp_main__', '__main__')
        cls.code = zlib.crc32(f'{module}.{cls.__qualname__}'.encode())
        TWINS[cls.code] = cls.apply_batch

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        """Parameters for an image of this height and width in pixels; by default none."""
        return {}

    def draw_batch(self, height: int, width: int, streams: RandomStreams) -> Sequence[Any]:
        """Encoded parameters of n images: for each column (n,) numbers or one number."""
        drawn = [self.draw(height, width, rng) for rng in streams.singly()]
        return np.array([self.encode(params) for params in drawn]).reshape(len(drawn), -1).T

    def draw_arrays(self, height: int, width: int, streams: RandomStreams) -> Sequence[Any]:
        """A ``draw_batch`` for a class whose ``draw`` also works on arrays."""
        return self.encode(self.draw(height, width, streams))  # type: ignore[arg-type]  # as said

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        """Apply drawn parameters to an image, (H, W, 3) uint8 BGR, not written to."""
        return to_bands(self.paint_planes(to_planes(img), params))

    def paint_planes(self, images: Tensor, params: dict) -> Tensor:
        """``paint_batch`` on a batch of one image from :func:`to_planes`."""
        numbers = torch.tensor([self.encode(params)], dtype=torch.float64)
        return self.apply_batch(images, torch.ones(1, dtype=torch.bool), numbers)

    def encode(self, params: dict) -> Sequence[Any]:
        """Parameters as a number for each column."""
        return [params[name] for name in self.columns]

    def decode(self, numbers: Sequence[float]) -> dict:
        """The inverse of ``encode``."""
        return {name: kind(number) for (name, kind), number in zip(self.columns.items(), numbers)}

    @classmethod
    def apply_batch(cls, images: Tensor, chosen: Tensor, numbers: Tensor) -> Tensor:
        """Apply drawn parameters to the chosen images of a batch, which is returned.

        ``images`` is (n, C, S, S) as for ``paint_batch``, ``chosen`` is (n,) bool, and ``numbers``
        is (n, columns and more) float64 on the host.
        """
        assert cls.paint_batch is not None  # TwoViews sends no others here
        paint, rows = cls.paint_batch, chosen.nonzero()[:, 0]
        params = numbers[rows, : len(cls.columns)].unbind(1)
        return on_rows(images, rows, lambda some: paint(some, *params))

    def apply(self, img: np.ndarray, rng: RandomStream) -> tuple[np.ndarray, dict]:
        height, width = img.shape[:2]
        params = self.draw(height, width, rng)
        if is_bgr(img) or self.paint_batch is None:
            return self.paint(img, params), params
        if height != width:
            raise UserError(
                f'{type(self).__name__}: an image that is not uint8 BGR must be a square here, got '
                f'{height} x {width} pixels: write it among the transforms of TwoViews.'
            )
        return DeviceTransform.paint(self, img, params), params

    def record(self, size: int, rng: RandomStream) -> dict | None:
        """Draw for an image of this side in pixels. None: do not apply the transform."""
        return self.draw(size, size, rng) if rng.random() < self.prob else None
