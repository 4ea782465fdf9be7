"""The views of a whole batch: drawn by array operations, and made on the host.

n images, V views, T steps of a pipeline, S side of a view in pixels.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Sequence

import cv2
import numpy as np

from simclr_mm.augment import STEP_WIDTH, decode_step, encode_batch

from .crop import resized_crop, sample_crops
from .random_streams import RandomStreams

if TYPE_CHECKING:
    from .views import TwoViews


class DrawnViews(NamedTuple):
    """What was drawn for the views of n images.

    Args:
        boxes: (n, V, 4) int64: top, left, height and width in pixels.
        flips: (n, V) bool.
        steps: (n, V, T, STEP_WIDTH) float64, rows of ``encode_step``.
    """
    boxes: np.ndarray
    flips: np.ndarray
    steps: np.ndarray


def draw_views(views: TwoViews, seeds: Sequence[int], epochs: Sequence[int],
               images: Sequence[int], height: int, width: int) -> DrawnViews:
    """Draw crop, flip and all steps, each from a stream of its own.

    The distributions are those of TwoViews for one image, the numbers are others.

    Args:
        views: What to draw.
        seeds: (n,) as :class:`RandomStreams` takes them; likewise the next two.
        epochs: (n,).
        images: (n,) places in the dataset.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """
    shape = len(images), views.num_views
    boxes = np.empty((*shape, 4), np.int64)
    flips = np.empty(shape, bool)
    length = max(1, *map(len, views.pipelines))
    steps = np.zeros((*shape, length, STEP_WIDTH))
    for v, pipeline in enumerate(views.pipelines):
        streams = RandomStreams(seeds, epochs, images, v, 0)
        flips[:, v] = streams.random() < views.flip_prob
        boxes[:, v] = sample_crops(height, width, views.scale, views.ratio, streams)
        for t, transform in enumerate(pipeline):
            streams = RandomStreams(seeds, epochs, images, v, t + 1)
            applied = streams.random() < transform.prob
            params = transform.draw_batch(views.size, views.size, streams)
            steps[:, v, t] = encode_batch(type(transform).__name__, applied, params)
    return DrawnViews(boxes, flips, steps)


def make_views(views: TwoViews, images: np.ndarray, drawn: DrawnViews) -> np.ndarray:
    """Crop, flip and augment with OpenCV, view by view.

    On a CPU nothing is faster: a view of 32 pixels stays in the cache from crop to end.

    Args:
        views: What was drawn for.
        images: (n, H, W, 3) uint8 BGR.
        drawn: From :func:`draw_views`.

    Returns:
        (n, V, 3, S, S) uint8 BGR.
    """
    size = views.size
    made = np.empty((*drawn.flips.shape, 3, size, size), np.uint8)
    numbers = zip(images, made, *(part.tolist() for part in drawn))
    for image, out, boxes, flips, steps in numbers:
        for v, pipeline in enumerate(views.pipelines):
            view = resized_crop(image, boxes[v], size, views.interpolation)
            if flips[v]:
                view = cv2.flip(view, 1)
            for transform, row in zip(pipeline, steps[v]):
                step = decode_step(row)
                if step is not None:
                    view = transform.paint(view, step[1])
            cv2.split(view, list(out[v]))  # (S, S, 3) -> (3, S, S)
    return made


def view_params(views: TwoViews, drawn: DrawnViews) -> list[dict]:
    """What was drawn for the views of the first image, as TwoViews writes it."""
    boxes, flips, steps = (part[0].tolist() for part in drawn)
    params = [dict(crop=tuple(box), flip=flip) for box, flip in zip(boxes, flips)]
    for v, pipeline in enumerate(views.pipelines):
        for transform, row in zip(pipeline, steps[v]):
            step = decode_step(row)
            params[v][type(transform).__name__] = None if step is None else step[1]
    return params
