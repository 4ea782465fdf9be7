"""What colours give away: histograms of random crops of an image.

I images, K crops of each, B bins.
"""

import csv
import io
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from simclr_mm.datasets import SampleIndex
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file

from .cells import TRANSFORMATIONS, two_views, with_views

BINS = 32
KINDS = ('without colour distortion', 'with colour distortion')


def crop_histograms(cfg: Config, images: Sequence[int], crops: int, seed: int = 0) -> np.ndarray:
    """Histograms of intensities, all channels together, of random crops.

    Source: SimCLR, arXiv:2002.05709, Sec. 3.1 and Fig. 6.

    Args:
        cfg: A pretraining config: its images, its crop.
        images: I places in the training set.
        crops: K >= 2 of each image; the same K with and without the distortion.
        seed: Of crops and distortion.

    Returns:
        (I, 2, K, B) shares in [0, 1] of the values, without and with distortion.
    """
    if crops < 2:
        raise UserError(f'--values crops={crops}: give 2 or more to compare')
    histograms = np.empty((len(images), 2, crops, BINS))
    for kind, transforms in enumerate(([], [TRANSFORMATIONS['color']])):
        dataset = _dataset_of_crops(cfg, crops, transforms)
        for row, image in enumerate(images):
            if not 0 <= image < len(dataset):
                raise UserError(
                    f'--values image={image}: the training set has places 0 to {len(dataset) - 1}'
                )
            views = dataset[SampleIndex(image, seed)]['inputs']  # (K, 3, S, S)
            for crop, view in enumerate(views):
                counts, _ = np.histogram(view.numpy(), BINS, range=(0, 256))
                histograms[row, kind, crop] = counts / view.numel()
    return histograms


def _dataset_of_crops(cfg: Config, crops: int, transforms: list):
    place, views = two_views(cfg)
    before = cfg.train_dataloader.dataset.pipeline[:place]
    step = dict(views, num_views=crops, transforms=transforms, augment='worker')
    pipeline = with_views(cfg, place, step, before)
    settings = dict(cfg.train_dataloader.dataset, pipeline=pipeline)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(settings)


def overlap_within(histograms: np.ndarray) -> float:
    """Mean area that two crops of an image share: (K, B) -> [0, 1]."""
    shared = [np.minimum(a, b).sum() for a, b in combinations(histograms, 2)]
    return float(np.mean(shared))


def overlap_between(histograms: np.ndarray) -> float:
    """Mean area that crops of different images share: (I, K, B) -> [0, 1], I >= 2."""
    shared = [
        np.minimum(one[:, None], other).sum(-1).mean() for one, other in combinations(histograms, 2)
    ]
    return float(np.mean(shared))


def write_histograms(path: Path, images: Sequence[int], histograms: np.ndarray) -> None:
    """Write one row a bin as CSV; levels are those of uint8."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(['image', 'distortion', 'crop', 'from_level', 'share'])
    for (row, kind, crop, place), share in np.ndenumerate(histograms):
        level = place * 256 // BINS
        table.writerow([images[row], KINDS[kind], crop, level, f'{share:.6f}'])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
