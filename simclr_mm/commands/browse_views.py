"""Draw images beside the views that pretraining makes of them, with the drawn parameters.

The views are those of a run with this seed (randomness.seed) in this epoch. Bands that are no
colours are stretched for looking: from the 1st to the 99th percentile of the image.
"""

import argparse
from typing import Any

import numpy as np

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.evaluate.image_features import training_set
from simclr_mm.datasets.nested import views_in
from simclr_mm.errors import UserError
from simclr_mm.transforms import UnreadableImage
from simclr_mm.visualization.views import Views, make_views, plot_views

_MOST = 100  # rows of a picture


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, 'config', '--data', '--seed', '--cfg-options')
    add, at_least = parser.add_argument, command_line.at_least
    add('--index', type=int, nargs='+', help='places of images in the dataset')
    add('--count', type=at_least(1), default=4, help='images drawn without --index')
    shown = 'bands shown as red, green and blue, or one as grey; else colours, or the first three'
    add('--bands', type=int, nargs='+', metavar='B', help=shown)
    add('--epoch', type=at_least(0), default=0, help='epoch, from 0')
    add('--out', metavar='PNG', default='work_dirs/plots/views.png', help='picture to write')
    args = parser.parse_args(argv)

    command_line.out_picture(args.out)
    shown_images = len(args.index) if args.index else args.count
    if shown_images > _MOST:
        raise UserError(f'{shown_images} images were asked for: a picture shows {_MOST} at most')
    cfg = command_line.config_with_flags(args.config, args, train_on_folder, 'train_dataloader')
    dataset = training_set(cfg)
    samples = chosen_samples(dataset, args)
    side = samples[0].views.shape[1]
    drawn = f'{side} px, seed {args.seed}, epoch {args.epoch}'
    title = f'Views for pretraining, {drawn}: each image with the boxes of its crops'
    plot_views(args.out, samples, title)
    shown = ', '.join(str(sample.index) for sample in samples)
    print(f'{args.out} shows the views of images {shown}.')
    views = next(views_in(dataset), None)
    for size, first in zip(views.sizes[1:], views.milestones) if views else ():
        print(f'The views grow: those of {size} px begin with --epoch {first}.')


def chosen_samples(dataset: Any, args: argparse.Namespace) -> list[Views]:
    """The images of --index, or random ones. Unreadable random images are named and skipped."""
    how = args.seed, args.epoch, args.bands
    if args.index:
        return [make_views(dataset, place, *how) for place in args.index]
    rng = np.random.default_rng(args.seed)
    count = min(args.count, len(dataset))
    chosen = rng.choice(len(dataset), count, False).tolist()
    others = [place for place in rng.permutation(len(dataset)).tolist() if place not in chosen]
    samples: list[Views] = []
    for place in sorted(chosen) + others:
        if len(samples) == count:
            break
        try:
            samples.append(make_views(dataset, place, *how))
        except UnreadableImage as error:
            print(f'Image {place} is left out: {error}')
    if not samples:
        raise UserError(f'none of the {len(dataset)} images can be read')
    return samples
