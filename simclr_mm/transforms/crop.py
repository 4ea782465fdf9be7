"""Random resized crop: torchvision's boxes, PIL's antialiased resize."""

import math
from operator import itemgetter
from typing import Any

import cv2
import numpy as np
import torch
from mmpretrain.datasets import transforms as mmpretrain

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, check_image, check_prob, check_range, check_size, is_bgr
from .batched.crop import INTERPOLATIONS, crop_and_flip
from .random_streams import RandomStream, RandomStreams

Box = tuple[int, int, int, int]  # top, left, height and width in pixels
_BOX = ('top', 'left', 'height', 'width')
box_of = itemgetter(*_BOX)  # of a crop's parameters


def sample_crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: RandomStream,
) -> Box:
    """Draw the box of a random resized crop with torchvision's algorithm.

    ``scale`` is the range of the crop's area as a share of the image, uniform. ``ratio`` is the
    range of width / height, log-uniform. After ten boxes that do not fit, the result is the
    largest central box of an allowed ratio.

    Differs: in the reference code TensorFlow draws side and ratio uniformly, tries 100 times, and
    then takes the whole image.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(log_low, log_high))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        top = rng.integers(max(height - h + 1, 1))
        left = rng.integers(max(width - w + 1, 1))
        if 0 < w <= width and 0 < h <= height:
            return top, left, h, w
    return _largest_crop(height, width, ratio)


def sample_crops(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    streams: RandomStreams,
) -> np.ndarray:
    """:func:`sample_crop` for all images of a batch, which have one size: (n, 4) whole numbers.

    All streams use as many tries as the slowest image. So later numbers of these streams
    depend on the batch, not on the image alone: do not draw from them again.
    """
    log_ratio = np.log(ratio)
    boxes = np.empty((len(streams), 4), np.int64)
    boxes[:] = _largest_crop(height, width, ratio)
    left_over = np.full(len(boxes), True)
    for _ in range(10):
        area = height * width * streams.uniform(*scale)
        aspect = np.exp(streams.uniform(*log_ratio))
        w = np.round(np.sqrt(area * aspect)).astype(np.int64)
        h = np.round(np.sqrt(area / aspect)).astype(np.int64)
        top = streams.integers(np.maximum(height - h + 1, 1))
        left = streams.integers(np.maximum(width - w + 1, 1))
        fits = left_over & (0 < w) & (w <= width) & (0 < h) & (h <= height)
        boxes[fits] = np.stack((top, left, h, w), axis=1)[fits]
        left_over &= ~fits
        if not left_over.any():
            break
    return boxes


def _largest_crop(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest central box whose width / height is in a range."""
    h, w = height, width
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(
    img: np.ndarray, box: Box, size: int, interpolation: str = 'bilinear', flip: bool = False
) -> np.ndarray:
    """Cut a box out and resize it as in PIL, antialiased where it shrinks.

    The image is (H, W, C), uint8 or float32, with the box inside. The result is (S, S, C) with S =
    ``size`` in pixels, a new array, mirrored left to right with ``flip``. float32 is not rounded.
    """
    top, left, h, w = box
    crop = img[top : top + h, left : left + w]  # (h, w, 3)
    bgr = is_bgr(img)
    if bgr and interpolation == 'bilinear' and max(h, w) <= size:
        # Nothing to antialias: OpenCV differs from PIL by a fifth of a level and halves
        # the time of a whole view at 32 pixels. (Its bicubic has another kernel.)
        small = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
        return cv2.flip(small, 1) if flip else small
    # torch needs contiguous memory; a flip makes a copy anyway.
    # OpenCV allows 128 bands, and drops the axis of a single one.
    if flip:
        crop = cv2.flip(crop, 1) if bgr else crop[:, ::-1].copy()
    else:
        crop = crop.copy()
    return resized(crop, (size, size), interpolation)


def resized(img: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize a contiguous image (h, w, C) to a height and a width as in PIL, antialiased."""
    h, w, channels = img.shape
    # With the batch stride of permute(2, 0, 1)[None], torch would not recognise the
    # channels-last layout and would copy to planes: 1.4 times slower.
    images = torch.from_numpy(img)
    strides = (h * w * channels, 1, w * channels, channels)
    images = images.as_strided((1, channels, h, w), strides)
    images = torch.nn.functional.interpolate(
        images, size, mode=interpolation, antialias=True
    )  # (1, C, height, width)
    return images[0].permute(1, 2, 0).contiguous().numpy()


@TRANSFORMS.register_module()
class ResizeEdge(mmpretrain.ResizeEdge):
    """mmpretrain's ResizeEdge, also for images of any bands, which keep type and bands.

    OpenCV averages at most four bands, Pillow takes no several bands of float32. uint8 BGR is
    resized as mmpretrain does. Any other image is antialiased as in PIL, whatever the backend.

    Args:
        *args: As in mmpretrain.
        **kwargs: As in mmpretrain.

    Raises:
        UserError: An image that is not uint8 BGR, with another interpolation than bilinear or
            bicubic.
    """

    def _resize_img(self, results: dict) -> None:
        img = results['img']
        check_image(img, 'ResizeEdge')
        if is_bgr(img):
            super()._resize_img(results)
            return
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f'ResizeEdge: images of other bands than BGR are resized by one of '
                f'{INTERPOLATIONS}, not {self.interpolation!r}.'
            )
        width, height = (max(1, edge) for edge in results['scale'])
        scale = width / img.shape[1], height / img.shape[0]
        results['img'] = resized(np.ascontiguousarray(img), (height, width), self.interpolation)
        results.update(img_shape=(height, width), scale=(width, height), scale_factor=scale)


@TRANSFORMS.register_module()
class RandomCropAndFlip(DeviceTransform):
    """Random resized crop, then a flip, as TwoViews does to every view.

    Inside TwoViews it crops each view. Before TwoViews it crops the image that all views
    are made of.

    Source: SimCLR, arXiv:2002.05709, Appendix A.

    Args:
        size: Side of the result in pixels. None: the image's height.
        scale: Range of the crop's area as a share of the image, in (0, 1].
        ratio: Range of the crop's width / height.
        flip_prob: Probability of a horizontal flip.
        prob: Probability of doing both. Otherwise the image keeps its size.
    """

    any_bands = True
    columns = dict.fromkeys(_BOX, int) | dict(flip=bool)
    paint_batch = staticmethod(crop_and_flip)

    def __init__(
        self,
        size: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        if size is not None:
            check_size(size, 'RandomCropAndFlip')
        check_crop('RandomCropAndFlip', scale, ratio, flip_prob)
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.flip_prob = flip_prob

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        flip = rng.random() < self.flip_prob
        box = sample_crop(height, width, self.scale, self.ratio, rng)
        return dict(zip(_BOX, box), flip=flip)

    def draw_batch(self, height: int, width: int, streams: RandomStreams) -> list[np.ndarray]:
        flip = streams.random() < self.flip_prob
        boxes = sample_crops(height, width, self.scale, self.ratio, streams)  # (n, 4)
        return [*boxes.T, flip]

    def apply(self, img: np.ndarray, rng: RandomStream) -> tuple[np.ndarray, dict]:
        params = self.draw(img.shape[0], img.shape[1], rng)
        return self.paint(img, params), params  # of any bands, not only squares

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        size = self.size or img.shape[0]
        return resized_crop(img, box_of(params), size, flip=params['flip'])


def check_crop(owner: str, scale: Any, ratio: Any, flip_prob: float) -> None:
    check_range(scale, owner, 'scale', (0.08, 1.0), highest=1)
    check_range(ratio, owner, 'ratio', (0.75, 1.33))
    check_prob(flip_prob, owner, 'flip_prob')
