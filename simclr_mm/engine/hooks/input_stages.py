"""Time the stages that one image passes through in a loader worker."""

import copy
import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import mmengine.fileio as fileio
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch.utils.data import Dataset

from simclr_mm.datasets import SampleIndex
from simclr_mm.models import ViewsPreprocessor
from simclr_mm.transforms import TwoViews, UnreadableImage
from simclr_mm.transforms.random_streams import RandomStream
from simclr_mm.transforms.seeding import seeded_globals

# What tools/pack.py --short-side 256 writes.
PACKED_SIDE, PACKED_QUALITY = 256, 90


@dataclass
class Stages:
    """Seconds an image, in one process.

    Args:
        read: The file's bytes; 0 where there are no files.
        decode: To pixels.
        crop: Crops and flips of all views.
        augment: Their other transforms; 0 where the device does them.
        rest: All other transforms.
        packed: Reading, decoding and cropping a copy with a short side of 256 pixels;
            None where there are no files.
        pixels: Of an image.
    """

    read: float = 0.0
    decode: float = 0.0
    crop: float = 0.0
    augment: float = 0.0
    rest: float = 0.0
    packed: float | None = None
    pixels: float = 0.0

    @property
    def total(self) -> float:
        return self.read + self.decode + self.crop + self.augment + self.rest


def measure_stages(dataset: Dataset, seconds: float = 2.0) -> Stages | None:
    """Apply a dataset's transforms to some of its images, one by one, on one core.

    The random states of this process are as before afterwards. The first image, which
    loads libraries, does not count, nor do unreadable ones.

    Args:
        dataset: With MMEngine's ``pipeline`` and ``prepare_data``, or around one.
        seconds: To spend, about.

    Returns:
        Means over the images, None if the dataset has no pipeline for single images or
        no image that can be read.
    """
    dataset = innermost(dataset)
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
    by_batch = getattr(dataset, 'batched', False)
    if not transforms or by_batch or not hasattr(dataset, 'prepare_data'):
        return None
    untransformed = copy.copy(dataset)
    untransformed.pipeline = lambda results: results
    draw = random.Random(0)
    end, measured = time.perf_counter() + seconds, []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        with seeded_globals(RandomStream.unseeded()):
            while time.perf_counter() < end and len(measured) < 100:
                index = SampleIndex(draw.randrange(len(dataset)))
                try:
                    measured.append(_one_image(untransformed, index, transforms))
                except OSError:  # UnreadableImage, or what our reading meets first
                    end -= seconds / 100  # not for ever
    finally:
        torch.set_num_threads(threads)
    return _mean(measured[1:] or measured)


def innermost(dataset: Dataset) -> Dataset:
    """The dataset that has the pipeline, inside ReplaceUnreadable and its like."""
    while 'pipeline' not in getattr(dataset, '__dict__', ()) and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def _one_image(dataset: Dataset, index: int, transforms: list[BaseTransform]) -> Stages:
    stages, small = Stages(), None
    # Datasets on shards read the file themselves, others find its path.
    results, found = _timed(lambda: dataset.prepare_data(index))
    for transform in transforms:
        if 'LoadImage' in type(transform).__name__ and 'img_path' in results:
            if 'img_bytes' in results:
                content, stages.read, again = results['img_bytes'], found, 0.0
            else:
                read = functools.partial(fileio.get, results['img_path'], transform.backend_args)
                content, stages.read = _timed(read)
                # The transform reads it once more, from the system's memory.
                _, again = _timed(read)
            results, both = _timed(lambda: transform(results))
            if results is None:  # ignore_empty
                raise UnreadableImage('given up')
            stages.decode = max(both - again, 0.0)
            small, stages.packed = _packed(results['img'], len(content), stages.read)
        elif isinstance(transform, TwoViews):
            img = results['img']
            crops = _crops_only(transform)
            _, stages.crop = _timed(lambda: crops(dict(results)))
            if small is not None:
                _, crop = _timed(lambda: crops(dict(results, img=small)))
                stages.packed += crop
            results, both = _timed(lambda: transform(results))
            stages.augment = 0.0 if transform.on_device else max(both - stages.crop, 0.0)
            stages.pixels = img.shape[0] * img.shape[1]
        else:
            results, spent = _timed(lambda: transform(results))
            stages.rest += spent
            if results is None:  # mmcv's sign for an image given up
                raise UnreadableImage('given up')
    return stages


def _packed(img: np.ndarray, size: int, read: float) -> tuple[np.ndarray, float]:
    """The image as a shard would hold it, and seconds to read and decode it there."""
    scale = PACKED_SIDE / min(img.shape[:2])
    if scale < 1:
        img = cv2.resize(img, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, PACKED_QUALITY]
    content = cv2.imencode('.jpg', img, quality)[1]
    small, decode = _timed(lambda: cv2.imdecode(content, cv2.IMREAD_COLOR))
    return small, decode + read * min(1, len(content) / size)


def _crops_only(views: TwoViews) -> TwoViews:
    views = copy.copy(views)
    views.pipelines = [[] for _ in views.pipelines]
    views.foreign = [False] * len(views.pipelines)
    return views


def device_seconds(views: TwoViews, preprocessor: ViewsPreprocessor, batch_size: int) -> float:
    """What augmenting a batch adds to a step where the model is."""
    views = copy.copy(views)
    views.on_device = True
    side = views.size
    img = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    drawn = [
        views(dict(img=img, sample_idx=SampleIndex(i)))['img'] for i in range(min(batch_size, 32))
    ]
    crops = torch.stack([torch.from_numpy(crops) for crops, _ in drawn])
    steps = torch.stack([steps for _, steps in drawn])
    repeats = -(-batch_size // len(drawn))  # rounded up
    batch = [each.repeat_interleave(repeats, 0)[:batch_size] for each in (crops, steps)]

    def augment() -> None:
        preprocessor(dict(inputs=batch))
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    augment()
    return _timed(augment)[1]


def _timed(call: Callable) -> tuple:
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


def _mean(measured: list[Stages]) -> Stages | None:
    if not measured:
        return None
    means = {}
    for key in vars(measured[0]):
        values = [vars(stages)[key] for stages in measured]
        means[key] = None if None in values else float(np.mean(values))
    return replace(Stages(), **means)
