"""Draw features as points in the plane, coloured by class: t-SNE, UMAP or PCA.

SOURCE is a folder from simclr-mm embed, in which the folder of an image is its class, or
a config whose test images are embedded with CHECKPOINT.
"""

from pathlib import Path

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import test_on_folder
from simclr_mm.commands.evaluate.image_features import from_config, from_embedding
from simclr_mm.errors import UserError
from simclr_mm.visualization.scatter import METHODS, plot_scatter, project


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--seed', '--cfg-options', '--trust-checkpoint')
    add = parser.add_argument
    add('source', help='folder that simclr-mm embed wrote, or a config (.py)')
    add('checkpoint', nargs='?', help='with a config: its weights')
    replaced = 'with a config: DIR/train/<class>/ and DIR/val/<class>/ replace its data'
    add('--data', metavar='DIR', help=replaced)
    add('--method', choices=METHODS, default='tsne', help='umap needs umap-learn')
    at_least, drawn = command_line.at_least, 'more are drawn from at random'
    add('--max-images', type=at_least(1), default=2000, help=drawn)
    add('--out', metavar='PNG', default='work_dirs/plots/embedding.png', help='the picture')
    args = parser.parse_args(argv)
    command_line.out_picture(args.out)
    if Path(args.source).is_dir():
        if args.checkpoint or args.data or args.cfg_options:
            raise UserError(
                f'{args.source} is an embedded folder: a checkpoint, --data and --cfg-options '
                'are for a config, leave them out'
            )
        data = from_embedding(args.source, args.max_images, args.seed)
    elif args.checkpoint is None:
        raise UserError(
            f'{args.source} is no folder: give a folder that '
            'simclr-mm embed wrote, or a config and a checkpoint'
        )
    else:
        cfg = command_line.config_with_flags(args.source, args, test_on_folder)
        encoder = load_encoder(args.checkpoint, cfg, get_device())
        data = from_config(encoder, args.max_images, args.seed)
    points = project(data.features, args.method, args.seed)
    width = data.features.shape[1]
    title = f'{len(points)} of {data.total} images of {data.name}, {width} features each'
    plot_scatter(args.out, points, data.labels, data.classes, args.method, title)
    print(f'{args.out} shows {len(points)} images of {len(data.classes)} classes.')
