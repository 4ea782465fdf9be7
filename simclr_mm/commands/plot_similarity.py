"""Draw the similarities of two views of one image and of views of different images.

Histograms of cosines for the projections, which the loss compares, and for the
features, which later tasks use.
"""

import argparse
from collections.abc import Sequence

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.evaluate.image_features import embed_views, training_set
from simclr_mm.errors import UserError
from simclr_mm.visualization.similarity import pair_similarities, plot_similarities


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='checkpoint, a path or a URL')
    parser.add_argument(
        '--data', metavar='DIR', help="images of this folder instead of the config's"
    )
    parser.add_argument('--count', type=int, default=500, help='images, drawn at random')
    parser.add_argument(
        '--seed', type=command_line.at_least(0), default=0, help='of the draw and the views'
    )
    parser.add_argument('--out', metavar='PNG', default='work_dirs/plots/similarity.png')
    command_line.add_cfg_options(parser)
    command_line.add_trust_flag(parser)
    return parser.parse_args(argv)


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if not 2 <= args.count <= 5000:
        raise UserError(
            f'--count is {args.count}: take 2 to 5000 images, because the '
            'number of pairs grows with the square'
        )
    cfg = command_line.read_config(args.config)
    if args.data is not None:
        train_on_folder(cfg, args.data)
    command_line.merge_cfg_options(cfg, args.cfg_options)
    encoder = load_encoder(args.checkpoint, cfg, get_device())
    features, projections = embed_views(encoder, training_set(cfg), args.count, args.seed)
    panels = [('features', *pair_similarities(features))]
    if projections is not None:
        panels.insert(0, ('projections', *pair_similarities(projections)))
    n, views = features.shape[:2]
    plot_similarities(args.out, panels, f'{views} views of {n} images, as training makes them')
    print(f'{args.out} shows the similarities of {n} images.')
