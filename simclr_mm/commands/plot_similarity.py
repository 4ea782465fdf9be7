"""Draw the similarities of two views of one image and of views of different images.

Histograms of cosines for the projections, which the loss compares, and for the
features, which later tasks use.
"""

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.evaluate.image_features import embed_views, training_set
from simclr_mm.errors import UserError
from simclr_mm.visualization.similarity import pair_similarities, plot_similarities


@command_line.command
def main(argv: list[str] | None = None) -> None:
    flags = ('config', 'checkpoint', '--data', '--seed', '--cfg-options', '--trust-checkpoint')
    parser = command_line.parser_of(__doc__, *flags)
    parser.add_argument('--count', type=int, default=500, help='images, drawn at random')
    out = 'work_dirs/plots/similarity.png'
    parser.add_argument('--out', metavar='PNG', default=out, help='the picture')
    args = parser.parse_args(argv)
    command_line.out_picture(args.out)
    if not 2 <= args.count <= 5000:
        raise UserError(f'--count is {args.count}: take 2 to 5000, as pairs grow with the square')
    cfg = command_line.config_with_flags(args.config, args, train_on_folder)
    encoder = load_encoder(args.checkpoint, cfg, get_device())
    features, projections = embed_views(encoder, training_set(cfg), args.count, args.seed)
    panels = [('features', *pair_similarities(features))]
    if projections is not None:
        panels.insert(0, ('projections', *pair_similarities(projections)))
    n, views = features.shape[:2]
    plot_similarities(args.out, panels, f'{views} views of {n} images, as training makes them')
    print(f'{args.out} shows the similarities of {n} images.')
