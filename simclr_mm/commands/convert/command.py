"""Convert another library's SimCLR or ResNet checkpoint to simclr_mm.

Supported are mmselfsup and mmpretrain, lightly, solo-learn, VISSL, sthalles, Spijkervet,
Atanov, MoCo-like, torchvision and timm ResNets, and google-research's checkpoints of
TensorFlow 1 and 2. Every weight is checked. OUT.keys.txt lists the use of each key.
"""

from collections.abc import Sequence

from simclr_mm.commands import command_line
from simclr_mm.commands.convert.conversion import Converted, convert, save

_SHOWN = 10  # keys of a kind on the terminal; all are in OUT.keys.txt


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--trust-checkpoint')
    add = parser.add_argument
    add('source', help='a path or URL; for TensorFlow NAME of NAME.index, or the folder')
    add('out', help='the checkpoint to write, ending in .pth')
    trained = "the encoder was trained with, where it is not what the library's own code has"
    for flag in ('--mean', '--std'):
        explained = f'{flag[2:]} of the pixels in [0, 255] that {trained}'
        add(flag, nargs=3, type=float, metavar=('R', 'G', 'B'), help=explained)
    args = parser.parse_args(argv)

    converted = convert(args.source, args.mean, args.std)
    checkpoint, config, keys = save(converted, args.out)
    report(converted)
    print(
        f'wrote {checkpoint}, {config} and {keys}; use it as\n'
        f"  get_model('{config}', pretrained='{checkpoint}')"
    )


def report(converted: Converted) -> None:
    """Print the library, the normalisation and the use of the keys."""
    settings = dict(converted.config.model.backbone)
    normalise = converted.checkpoint['meta']['normalise']
    renamed = sum(key != ours for key, ours in converted.used.items())
    print(f'layout: {converted.layout}; backbone: {settings}')
    print(f'pixels: RGB, mean {normalise["mean"]}, std {normalise["std"]} in [0, 255]')
    print(f'used {len(converted.used)} keys, {renamed} of them renamed')
    counters = [key for key in converted.filled if key.endswith('_tracked')]
    if counters:
        print(f'filled {len(counters)} counters of batches with 0')
    filled = {key: converted.filled[key] for key in converted.filled.keys() - counters}
    for kind, keys in (('left', converted.left), ('filled', filled)):
        more = f'; {len(keys) - _SHOWN} more' if len(keys) > _SHOWN else ''
        print(
            f'{kind} {len(keys)}: '
            + '; '.join(f'{key} ({why})' for key, why in list(keys.items())[:_SHOWN])
            + more
        )
