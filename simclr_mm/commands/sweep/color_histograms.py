"""Histograms of random crops of an image, which show how much colours reveal.

I images, K crops of each, B bins.
"""

import copy
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from mmengine.config import Config

from simclr_mm.commands.evaluate.image_features import training_set
from simclr_mm.datasets import SampleIndex
from simclr_mm.errors import UserError
from simclr_mm.visualization.study import plot_crop_histograms

from .cells import TRANSFORMATIONS, two_views

BINS = 32
_MOST_CROPS = 100  # each is a line in the figure
KINDS = ('without colour distortion', 'with colour distortion')


def draw_color_histograms(cfg: Config, asked: dict, work_dir: Path) -> None:
    """Draw Fig. 6, which needs no training."""
    for name in set(asked) - {'image', 'crops'}:
        raise UserError(f'--values {name}: this study takes image and crops')
    images = asked.get('image', [0, 1])
    images = images if isinstance(images, list) else [images]
    crops = asked.get('crops', 6)
    if not images or not all(isinstance(number, int) for number in [*images, crops]):
        raise UserError(f'--values image={images} crops={crops}: give whole numbers')
    images = list(dict.fromkeys(images))
    histograms = crop_histograms(cfg, images, crops)
    within = np.array([[overlap_within(some) for some in row] for row in histograms])
    names = [f'image {image}' for image in images]
    title = 'Intensities of random crops (Fig. 6): a line for each crop'
    if len(images) > 1:
        plain, distorted = (100 * overlap_between(histograms[:, kind]) for kind in (0, 1))
        title += f'\nCrops of different images share {plain:.0f} % without, '
        title += f'{distorted:.0f} % with distortion'
    figure = work_dir / 'color-histograms.png'
    plot_crop_histograms(str(figure), histograms, within, names, KINDS, title)
    print(f'{figure} shows {len(images)} images.')


def crop_histograms(cfg: Config, images: Sequence[int], crops: int, seed: int = 0) -> np.ndarray:
    """Histograms of intensities, over all channels, of K random crops of I training images.

    Source: SimCLR, arXiv:2002.05709, Sec. 3.1 and Fig. 6.

    Returns:
        (I, 2, K, B) shares in [0, 1] of the values, without and with distortion. The crops
        are the same.
    """
    if not 2 <= crops <= _MOST_CROPS:
        raise UserError(f'--values crops={crops}: give 2 to {_MOST_CROPS} to compare')
    histograms = np.empty((len(images), 2, crops, BINS))
    before, views_step, after = two_views(cfg)
    for kind, transforms in enumerate(([], [TRANSFORMATIONS['color']])):
        step = dict(views_step, num_views=crops, transforms=transforms, augment='worker')
        cfg = copy.deepcopy(cfg)
        cfg.train_dataloader.dataset.pipeline = [*before, step, *after]
        dataset = training_set(cfg)
        for row, image in enumerate(images):
            if not 0 <= image < len(dataset):
                raise UserError(
                    f'--values image={image}: the training set has images 0 to {len(dataset) - 1}'
                )
            views = dataset[SampleIndex(image, seed)]['inputs']  # (K, 3, S, S)
            for crop, view in enumerate(views):
                counts, _ = np.histogram(view.numpy(), BINS, range=(0, 256))
                histograms[row, kind, crop] = counts / view.numel()
    return histograms


def overlap_within(histograms: np.ndarray) -> float:
    """Mean overlap of the histograms of two crops of an image: (K, B) -> [0, 1]."""
    return overlap_between(histograms[:, None])


def overlap_between(histograms: np.ndarray) -> float:
    """Mean overlap of histograms of different images: (I, K, B) -> [0, 1], I >= 2."""
    shared = [
        np.minimum(one[:, None], other).sum(-1).mean() for one, other in combinations(histograms, 2)
    ]
    return float(np.mean(shared))
