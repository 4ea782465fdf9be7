"""The views of a whole batch: drawn by array operations, and made on the host.

n images, V views, T steps of a pipeline, S side of a view in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from .batched import STEP_WIDTH, decode_step, encode_batch
from .crop import resized_crop, sample_crops
from .random_streams import batch_streams

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


def draw_views(
    views: TwoViews,
    seeds: Sequence[int],
    epochs: Sequence[int],
    images: Sequence[int],
    height: int,
    width: int,
) -> DrawnViews:
    """Draw crop, flip and all steps, as TwoViews does for each image by itself.

    Args:
        views: What to draw.
        seeds: (n,) seeds of the run.
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
        crop, *others = batch_streams(seeds, epochs, images, v, 1 + len(pipeline))
        flips[:, v] = crop.random() < views.flip_prob
        boxes[:, v] = sample_crops(height, width, views.scale, views.ratio, crop)
        for t, (transform, streams) in enumerate(zip(pipeline, others)):
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
    made = np.empty((*drawn.flips.shape, 3, views.size, views.size), np.uint8)
    numbers = zip(images, made, *(part.tolist() for part in drawn))
    for image, out, boxes, flips, steps in numbers:
        for v, pipeline in enumerate(views.pipelines):
            view = resized_crop(image, boxes[v], views.size, views.interpolation, flips[v])
            for transform, row in zip(pipeline, steps[v]):
                params = decode_step(row)
                if params is not None:
                    view = transform.paint(view, params)
            cv2.split(view, list(out[v]))  # (S, S, 3) -> (3, S, S)
    return made
