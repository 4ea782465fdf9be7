"""The crop of TwoViews as a separate transform, for studies."""

from operator import itemgetter
from typing import Any

import numpy as np

from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, check_prob, check_range, check_size
from .batched.crop import crop_and_flip
from .crop import resized_crop, sample_crop, sample_crops
from .random_streams import RandomStream, RandomStreams, view_streams

_BOX = ('top', 'left', 'height', 'width')
box_of = itemgetter(*_BOX)  # of a crop's parameters

# The view number of a crop before TwoViews. No view has it.
_BEFORE_VIEWS = 2**31


@TRANSFORMS.register_module()
class RandomCropAndFlip(DeviceTransform):
    """Random resized crop, then a flip, as TwoViews does to every view.

    Inside TwoViews it crops each view. Before TwoViews it crops the image that all views
    are made of, with the seed and epoch that simclr_mm.ResumableSampler sends along.

    Source: SimCLR, arXiv:2002.05709, Appendix A.

    Args:
        size: Side of the result in pixels. None: the image's height.
        scale: Range of the crop's area as a share of the image, in (0, 1].
        ratio: Range of the crop's width / height.
        flip_prob: Probability of a horizontal flip.
        prob: Probability of doing both. Otherwise the image keeps its size.
    """

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
        self.interpolation = 'bilinear'  # TwoViews may set another one

    def transform(self, results: dict) -> dict:
        index: Any = results.get('sample_idx')
        if 'rng' not in results and hasattr(index, 'seed'):
            (results['rng'],) = view_streams(index.seed, index.epoch, index.place, _BEFORE_VIEWS, 1)
        return super().transform(results)

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        flip = rng.random() < self.flip_prob
        box = sample_crop(height, width, self.scale, self.ratio, rng)
        return dict(zip(_BOX, box), flip=flip)

    def draw_batch(self, height: int, width: int, streams: RandomStreams) -> list[np.ndarray]:
        flip = streams.random() < self.flip_prob
        boxes = sample_crops(height, width, self.scale, self.ratio, streams)  # (n, 4)
        return [*boxes.T, flip]

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        size = self.size or img.shape[0]
        return resized_crop(img, box_of(params), size, self.interpolation, params['flip'])


def check_crop(owner: str, scale: Any, ratio: Any, flip_prob: float) -> None:
    check_range(scale, owner, 'scale', (0.08, 1.0), highest=1)
    check_range(ratio, owner, 'ratio', (0.75, 1.33))
    check_prob(flip_prob, owner, 'flip_prob')
