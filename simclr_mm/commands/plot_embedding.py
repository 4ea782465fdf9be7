"""Draw features as points in the plane, coloured by class: t-SNE, UMAP or PCA.

SOURCE is a folder from tools/embed.py, in which the folder of an image is its class, or
a config whose test images are embedded with CHECKPOINT.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import test_on_folder
from simclr_mm.commands.evaluate.image_features import from_config, from_embedding
from simclr_mm.errors import UserError
from simclr_mm.visualization.scatter import METHODS, plot_scatter, project


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', help='folder that tools/embed.py wrote, or a config (.py)')
    parser.add_argument('checkpoint', nargs='?', help='with a config: its weights')
    parser.add_argument(
        '--data',
        metavar='DIR',
        help='with a config: DIR/train/<class>/ and DIR/val/<class>/ replace its data',
    )
    parser.add_argument('--method', choices=METHODS, default='tsne')
    parser.add_argument(
        '--max-images',
        type=command_line.at_least(1),
        default=2000,
        help='a random sample of so many images is drawn from more',
    )
    parser.add_argument(
        '--seed', type=command_line.at_least(0), default=0, help='of the draw and the map'
    )
    parser.add_argument('--out', metavar='PNG', default='work_dirs/plots/embedding.png')
    command_line.add_cfg_options(parser)
    command_line.add_trust_flag(parser)
    return parser.parse_args(argv)


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if Path(args.source).is_dir():
        data = from_embedding(args.source, args.max_images, args.seed)
    elif args.checkpoint is None:
        raise UserError(
            f'{args.source} is no folder: give a folder that '
            'tools/embed.py wrote, or a config and a checkpoint'
        )
    else:
        cfg = command_line.read_config(args.source)
        if args.data is not None:
            test_on_folder(cfg, args.data)
        command_line.merge_cfg_options(cfg, args.cfg_options)
        encoder = load_encoder(args.checkpoint, cfg, get_device())
        data = from_config(encoder, args.max_images, args.seed)
    points = project(data.features, args.method, args.seed)
    plot_scatter(
        args.out,
        points,
        data.labels,
        data.classes,
        args.method,
        f'{len(points)} of {data.total} images of {data.name}, '
        f'{data.features.shape[1]} features each',
    )
    print(f'{args.out} shows {len(points)} images of {len(data.classes)} classes.')
